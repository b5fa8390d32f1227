"""``ecrl envs``: lists the environments; ``show`` and ``check`` look at one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.compose import build_config
from ecrl.config.groups import options as group_options
from ecrl.config.schema import EnvConfig
from ecrl.envs.arguments import keyword_arguments
from ecrl.envs.conformance import NOISE, SkippedError, check, play, reference
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.safe_calls import env_creator, make, reset, user_code
from ecrl.errors import UsageError

COMMAND = Command(
    name="envs",
    help="""ecrl envs: list the environments, or look at one

  ecrl envs                            list them
  ecrl envs show ID [key=value…]       arguments, a problem, what a right and a wrong answer earn
  ecrl envs check ID [key=value…]      run the conformance suite on it
  ecrl envs difficulty ID model.path=DIR [key=value…] [eval.k=16] [output=FILE.jsonl]
                                       a policy's pass rate on each training problem; goes on where it was

ID: a short name (countdown), a Gymnasium id, or one of your own: mypkg.mod:me/MyTask-v0.
key=value: an argument of its constructor, as env.kwargs.key in `ecrl train`.
Exit code 1 if a check fails.
""",
    settings=NoSettings,
    words=True,
    overrides=True,
    flags=("--config-dir",),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """List the registered environments, or look at one; 1 if a check fails."""
    if arguments.words[:1] == ["difficulty"] and len(arguments.words) == 2:
        from ecrl.cli.difficulty import difficulty  # it loads all of training

        return difficulty(arguments.words[1], arguments)
    actions: dict[str, Callable[[EnvConfig], int]] = {"show": _show, "check": _check}
    words = arguments.words
    if not words and not arguments.overrides:
        return _list(arguments.config_dir)
    if len(words) != 2 or words[0] not in actions:
        raise UsageError(
            "Write `ecrl envs`, `ecrl envs show ID [key=value…]`, `ecrl envs check ID [key=value…]` or "
            "`ecrl envs difficulty ID model.path=DIR [key=value…]`; "
            f"got {' '.join([*words, *arguments.overrides])!r}."
        )
    return actions[words[0]](_named(words[1], arguments))


def _named(name: str, arguments: Arguments[NoSettings]) -> EnvConfig:
    """Compose an environment; its keyword arguments may leave out ``env.kwargs.``."""
    settings = [f"env.kwargs.{word.removeprefix('env.kwargs.')}" for word in arguments.overrides]
    return build_config([f"env={name}", *settings], arguments.config_dir).env


def _list(config_dir: Path | None) -> int:
    import ecrl.envs  # noqa: F401  (registers them)

    table = Table("id", "what")
    for env_id in sorted(i for i in gym.registry if "/" in i and i.split("/")[0] == "ecrl"):
        table.add_row(env_id, env_creator(env_id).__doc__.strip().splitlines()[0])
    Console(highlight=False).print(table)
    print(f"Tasks of reasoning-gym, as env=reasoning_gym/TASK: {', '.join(TASKS)}")
    print(f"Short names for env=…: {', '.join(group_options('env', config_dir))}")
    print("Your own: env=mypkg.mod:me/MyTask-v0    More of one: ecrl envs show ID, ecrl envs check ID")
    return 0


def _show(config: EnvConfig) -> int:
    """Print spaces, arguments, a problem, and what a right and a wrong answer earn."""
    env = make(config.id, "train", dict(config.kwargs))
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(config.id)}[/bold]  {escape(_first_line(env.unwrapped))}")
    console.print(f"observation {env.observation_space}   action {env.action_space}")
    table = Table("argument", "default", "now")
    for parameter in keyword_arguments(type(env.unwrapped)).values():
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.name in config.kwargs:
            default = "required" if parameter.default is parameter.empty else repr(parameter.default)
            now = repr(config.kwargs[parameter.name]) if parameter.name in config.kwargs else ""
            table.add_row(parameter.name, escape(default), escape(now))
    console.print(table)
    prompt, _ = reset(env, seed=0)
    console.print("[bold]a problem[/bold]")
    console.print(escape(prompt))
    for what, correct in (("right", True), ("wrong", False)):
        reset(env, seed=0)
        try:
            with user_code(f"{config.id}.solution", but=(SkippedError,)):
                answer = reference(env, 0, correct)
        except SkippedError as why:
            answer = NOISE[2]
            if correct:
                console.print(f"[bold]a right answer[/bold]: {escape(str(why))}")
                continue
        with user_code(f"{config.id}.step"):
            reward, info = play(env, answer)
        console.print(f"[bold]a {what} answer[/bold] earns {reward:g} {info.get('metrics', {})}")
        console.print(escape(answer))
    env.close()
    return 0


def _first_line(env: Any) -> str:
    return (type(env).__doc__ or "").strip().split("\n")[0]


def _check(config: EnvConfig) -> int:
    """Run the conformance suite; an environment that cannot be made is one error instead of eight."""
    make(config.id, "train", dict(config.kwargs)).close()
    findings = check(lambda split: make(config.id, split, dict(config.kwargs)))
    table = Table("check", "verdict", "detail", title=config.id)
    colours = {"pass": "green", "fail": "red", "skip": "yellow"}
    for finding in findings:
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(finding.name, verdict, escape(finding.detail))
    Console(highlight=False).print(table)
    return int(any(f.verdict == "fail" for f in findings))
