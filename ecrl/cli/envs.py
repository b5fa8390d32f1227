"""``ecrl envs``: what can be trained on; ``show`` and ``check`` look at one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.options import Options, parse
from ecrl.config.compose import build_config
from ecrl.config.compose import options as group_options
from ecrl.config.schema import EnvConfig
from ecrl.envs.arguments import keyword_arguments
from ecrl.envs.conformance import NOISE, SkippedError, check, play, reference
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.safe_calls import env_creator, reset, user_code
from ecrl.errors import UsageError
from ecrl.training.datamodule import make_env

USAGE = "`ecrl envs`, `ecrl envs show ID [key=value…]` or `ecrl envs check ID [key=value…]`"


def main(arguments: Sequence[str]) -> int:
    """List the registered environments, or look at one; 1 if a check fails."""
    commands: dict[str, Callable[[EnvConfig], int]] = {"show": _show, "check": _check}
    words = list(arguments)
    command = words.pop(0) if words and words[0] in commands else None
    options = parse(words)
    if command is None:
        if options.overrides:
            raise UsageError(f"Write {USAGE}; got {' '.join(arguments)}.")
        return _list(options)
    if not options.overrides or "=" in options.overrides[0]:
        raise UsageError(f"`ecrl envs {command}` needs an environment's id or short name first.")
    return commands[command](_named(options))


def _named(options: Options) -> EnvConfig:
    """The environment of ``ID key=value…``, keyword arguments with or without ``env.kwargs.``."""
    name, *values = options.overrides
    settings = [v if v.startswith("env.kwargs.") else f"env.kwargs.{v}" for v in values]
    return build_config([f"env={name}", *settings], options.config_dir).env


def _list(options: Options) -> int:
    import ecrl.envs  # noqa: F401  (registers them)

    table = Table("id", "what")
    for env_id in sorted(i for i in gym.registry if "/" in i and i.split("/")[0] == "ecrl"):
        table.add_row(env_id, env_creator(env_id).__doc__.strip().splitlines()[0])
    Console(highlight=False).print(table)
    print(f"Tasks of reasoning-gym, as env=reasoning_gym/TASK: {', '.join(TASKS)}")
    print(f"Short names for env=…: {', '.join(group_options('env', options.config_dir))}")
    print("Your own: env=mypkg.mod:me/MyTask-v0    More of one: ecrl envs show ID, ecrl envs check ID")
    return 0


def _show(config: EnvConfig) -> int:
    """Print spaces, arguments, a problem, and what a right and a wrong answer earn."""
    env = make_env(config.id, "train", dict(config.kwargs))
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
    """Run the conformance suite, unless the environment cannot even be made: that is one line, not eight."""
    make_env(config.id, "train", dict(config.kwargs)).close()
    findings = check(lambda split: make_env(config.id, split, dict(config.kwargs)))
    table = Table("check", "verdict", "detail", title=config.id)
    colours = {"pass": "green", "fail": "red", "skip": "yellow"}
    for finding in findings:
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(finding.name, verdict, escape(finding.detail))
    Console(highlight=False).print(table)
    return int(any(f.verdict == "fail" for f in findings))
