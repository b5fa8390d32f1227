"""``ecrl envs``: lists the environments; ``show`` and ``check`` look at one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.compose import build_config
from ecrl.config.eval_sets import validation_sets
from ecrl.config.groups import options as group_options
from ecrl.config.limits import choice, count
from ecrl.config.schema import Config, EnvConfig
from ecrl.envs.arguments import keyword_arguments
from ecrl.envs.base import Split
from ecrl.envs.conformance import NOISE, SkippedError, check, play, reference
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.safe_calls import env_creator, env_id, make, reset, user_code
from ecrl.errors import UsageError
from ecrl.policy.context_window import context_window
from ecrl.rollout.chat import Chat, set_template
from ecrl.rollout.opening import gold_of
from ecrl.rollout.prompt_limit import prompt_limit

#: Settings that are not the environment's.
_OTHERS = "model.", "rollout.", "model=", "update.", "eval."


@dataclass(frozen=True)
class Shown:
    """What ``show`` shows.

    Attributes:
        split: the split that the problem is from.
        seed: of the problem.
        answer: an answer to score, beside a right and a wrong one.
    """

    split: str = choice("train", get_args(Split))
    seed: int = count(0, least=0)
    answer: str | None = None


COMMAND = Command(
    name="envs",
    help="""ecrl envs: list the environments, or look at one

  ecrl envs                            list them
  ecrl envs show ID [key=value…]       arguments, a problem, what a right and a wrong answer earn
  ecrl envs show ID model.path=DIR     the exact text that this policy reads, and its tokens
  ecrl envs check ID [key=value…]      run the conformance suite on it
  ecrl envs difficulty ID model.path=DIR [key=value…] [eval.k=16] [output=FILE.jsonl]
                                       a policy's pass rate on each training problem; goes on where it was

ID: a short name (countdown), a Gymnasium id, or one of your own: mypkg.mod:me/MyTask-v0.
key=value: an argument of its constructor, as env.kwargs.key in `ecrl train`; model.…, rollout.…,
  update.… and eval.… as there.
show also takes:
  split=SPLIT        train or val                                                (default: train)
  seed=N             another problem                                             (default: 0)
  answer=TEXT        an answer to score, beside a right and a wrong one
Exit code 1 if a check fails.
""",
    settings=Shown,
    words=True,
    overrides=True,
    flags=("--config-dir",),
)


def main(arguments: Arguments[Shown]) -> int:
    """List the registered environments, or look at one; 1 if a check fails."""
    words, settings = arguments.words, arguments.settings
    if not words and not arguments.overrides and settings == Shown():
        return _list(arguments.config_dir)
    if len(words) == 2 and words[0] == "show":
        return _show(_named(words[1], arguments), settings)
    if len(words) == 2 and words[0] == "check" and settings == Shown():
        return _check(_named(words[1], arguments).env)
    if len(words) == 2 and words[0] == "difficulty" and settings == Shown(seed=settings.seed):
        from ecrl.cli.difficulty import difficulty  # it loads all of training

        overrides = [*arguments.overrides, f"seed={settings.seed}"]  # there the seed is the run's
        return difficulty(words[1], replace(arguments, overrides=overrides))
    raise UsageError(
        "Write `ecrl envs`, `ecrl envs show ID [key=value…]`, `ecrl envs check ID [key=value…]` or "
        "`ecrl envs difficulty ID model.path=DIR [key=value…]`; "
        f"got {' '.join([*words, *arguments.overrides])!r}."
    )


def _named(name: str, arguments: Arguments[Shown]) -> Config:
    """Compose a configuration; the environment's keyword arguments may leave out ``env.kwargs.``."""
    settings = [
        word if word.startswith(_OTHERS) else f"env.kwargs.{word.removeprefix('env.kwargs.')}"
        for word in arguments.overrides
    ]
    return build_config([f"env={name}", *settings], arguments.config_dir)


def _list(config_dir: Path | None) -> int:
    import ecrl.envs  # noqa: F401  (registers them)

    table = Table("id", "what")
    for name in sorted(i for i in gym.registry if "/" in i and i.split("/")[0] == "ecrl"):
        table.add_row(name, env_creator(name).__doc__.strip().splitlines()[0])
    Console(highlight=False).print(table)
    print(f"Tasks of reasoning-gym, as env=reasoning_gym/TASK: {', '.join(TASKS)}")
    print(f"Short names for env=…: {', '.join(group_options('env', config_dir))}")
    print("Your own: env=mypkg.mod:me/MyTask-v0    More of one: ecrl envs show ID, ecrl envs check ID")
    return 0


def _show(config: Config, settings: Shown) -> int:
    """Print spaces, arguments, a problem as the policy reads it, and what answers earn."""
    name, kwargs = config.env.id, dict(config.env.kwargs)
    split: Any = settings.split
    env = make(name, split, kwargs)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(name)}[/bold]  {escape(_first_line(env.unwrapped))}")
    console.print(f"observation {env.observation_space}   action {env.action_space}")
    console.print(_arguments(env, kwargs))
    prompt, info = reset(env, seed=settings.seed)
    if config.model.path:
        _show_reading(console, config, split, prompt, info)
    else:
        console.print("[bold]a problem[/bold]")
        console.print(escape(prompt))
    if (gold := gold_of(env)) is not None:
        console.print(f"[bold]the right answer[/bold]: {escape(gold)}")
    for what, answer in _answers(console, env, settings):
        reset(env, seed=settings.seed)
        with user_code(f"{name}.step"):
            reward, info = play(env, answer)
        read = info.get("answer")
        said = f"{info.get('metrics', {})}; the verifier reads {'no answer' if read is None else repr(read)}"
        console.print(f"[bold]{what}[/bold] earns {reward:g} {escape(said)}")
        console.print(escape(answer))
    env.close()
    return 0


def _show_reading(
    console: Console, config: Config, split: Split, prompt: str, info: Mapping[str, Any]
) -> None:
    """Print the exact text that the policy reads, special tokens and all, and how many tokens it has."""
    from ecrl.policy.model import check_model, load_config, load_tokenizer  # they load torch

    path = str(config.model.path)
    check_model(path)
    tokenizer = load_tokenizer(path)
    set_template(tokenizer, config.model.chat)
    chat = Chat(tokenizer, config.model.chat)
    ids = chat.opening(chat.text(prompt, info.get("messages", ())))
    training = split == "train"
    new = config.rollout.max_new_tokens if training else validation_sets(config)[0].max_new_tokens
    limit = prompt_limit(config, context_window(load_config(path)), new, training)
    most = "" if limit.tokens is None else f"; {limit.reason} allows {limit.tokens}"
    console.print(f"[bold]a problem, as the policy reads it[/bold]: {len(ids)} tokens{escape(most)}")
    console.print(escape(chat.shown(ids)))


def _arguments(env: gym.Env[str, str], kwargs: Mapping[str, Any]) -> Table:
    table = Table("argument", "default", "now")
    for parameter in keyword_arguments(type(env.unwrapped)).values():
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.name in kwargs:
            default = "required" if parameter.default is parameter.empty else repr(parameter.default)
            now = repr(kwargs[parameter.name]) if parameter.name in kwargs else ""
            table.add_row(parameter.name, escape(default), escape(now))
    return table


def _answers(console: Console, env: gym.Env[str, str], settings: Shown) -> Iterator[tuple[str, str]]:
    """Yield answers to try, and what they are called; say why there is none."""
    for what, correct in (("a right answer", True), ("a wrong answer", False)):
        reset(env, seed=settings.seed)
        try:
            with user_code(f"{env_id(env)}.solution", but=(SkippedError,)):
                answer = reference(env, 0, correct)
        except SkippedError as why:
            if correct:
                console.print(f"[bold]{what}[/bold]: {escape(str(why))}")
                continue
            answer = NOISE[2]
        yield what, answer
    if settings.answer is not None:
        yield "your answer", settings.answer


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
