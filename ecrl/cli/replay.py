"""``ecrl replay RUN``: which tokens strategies choose of a run's rollout."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ecrl.cli.arguments import Arguments, Command
from ecrl.cli.listing import listing
from ecrl.cli.output import check_output
from ecrl.cli.token_colours import colour_limit, has_colours, legend, written
from ecrl.config.groups import filled_key
from ecrl.config.keys import is_below, key_of
from ecrl.config.limits import count
from ecrl.config.resume import run_config, saved_config
from ecrl.errors import UsageError
from ecrl.runs.checkpoints import folder_of
from ecrl.runs.metrics_file import legible
from ecrl.runs.os_errors import writing
from ecrl.runs.redrawing import check_tokens
from ecrl.runs.rollouts import read_rollouts
from ecrl.runs.run import load_run

if TYPE_CHECKING:
    from ecrl.algorithm.strategy import Strategy
    from ecrl.training.replayed_tokens import ReplayedTokens

_RESPONSES = 2  # that are shown with their tokens
_MEANS = {
    "covariance": "covariance",
    "logprob": "log-prob",
    "entropy": "entropy",
    "advantage": "advantage",
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``ecrl replay``.

    Attributes:
        iteration: as in metrics.jsonl.
        output: new folder for the page and the table.
        count: rows of the table of tokens.
    """

    iteration: int | None = count(None, least=1)
    output: Path | None = None
    count: int = count(20, least=1)  # last: it hides the function


COMMAND = Command(
    name="replay",
    help="""ecrl replay: which tokens strategies choose of a run's rollout, offline

  ecrl replay RUN iteration=17                          the run's own strategies
  ecrl replay RUN iteration=17 strategy=[clip_cov,kl_cov] strategy.clip_cov.fraction=0.01

  iteration=N     a row of metrics.jsonl, whose tokens are on disk (log.rollout_tokens)
  strategy=[…]    a stack as in training, with settings; to see one alone, name it alone
  count=N         tokens in the table                                            (default: 20)
  output=DIR      new folder: replay.html, a page with it; tokens.parquet, all tokens
docs/rollouts.md says what is exact.
""",
    settings=Settings,
    words=True,
    overrides=True,
    flags=("--config-dir",),
)


def main(arguments: Arguments[Settings]) -> int:
    """Plan the update once more, and print what the strategies did."""
    settings = arguments.settings
    if len(arguments.words) != 1:
        raise UsageError(f"`ecrl replay RUN` takes one run, got {len(arguments.words)}.")
    if settings.iteration is None:
        raise UsageError("`ecrl replay` needs iteration=N, a row of metrics.jsonl.")
    for override in arguments.overrides:
        if not is_below(key_of(override), ["strategy"]):
            raise UsageError(
                f"{override!r}: a replay keeps the run's settings but strategy=[…] and strategy.NAME.KEY=…"
            )
    run_dir = Path(arguments.words[0])
    if settings.output is not None:
        check_output(settings.output)
    load_run(run_dir)
    check_tokens(run_dir, settings.iteration)
    config = run_config(run_dir, arguments.overrides, arguments.config_dir)
    own = run_config(run_dir, [], arguments.config_dir).strategy
    if not config.strategy:
        raise UsageError("There is no strategy to replay: give strategy=[NAME].")
    saved = saved_config(run_dir / "config.yaml")
    parent = folder_of(Path(saved.fork), int(saved.checkpoint.load)) if saved.fork else None
    # Not before the words hold: this takes seconds to import.
    from ecrl.training.replay import replay
    from ecrl.training.replayed_tokens import replayed_tokens

    result = replay(run_dir, config, settings.iteration, own, parent)
    tokens = replayed_tokens(result)
    where = f"{legible(run_dir)}, iteration {settings.iteration}"
    strategies = _described(result.strategies, config.strategy, arguments.overrides)
    head = f"{where}: {len(tokens.text)} tokens in {len(result.minibatches)} minibatches"
    _print([head, *result.notes], strategies, tokens, settings)
    if settings.output is not None:
        from ecrl.report.replay_page import replay_page

        part = read_rollouts(run_dir, settings.iteration, columns=["prompt", "reward"])
        page = replay_page(
            tokens,
            where=where,
            command=_command(arguments),
            strategies=strategies,
            notes=result.notes,
            part=part,
            most=settings.count,
        )
        with writing(settings.output, "output"):
            settings.output.mkdir(parents=True)
            (settings.output / "replay.html").write_text(page, encoding="utf-8", errors="replace")
            tokens.write(settings.output / "tokens.parquet")
        print(f"Look at it:  {legible(settings.output / 'replay.html')}")
    return 0


def _described(
    strategies: Sequence[Strategy], nodes: Mapping[str, Any], overrides: Sequence[str]
) -> list[str]:
    """Return a line for each strategy: its name, the preset that was asked for, and all its settings."""
    words = [override for override in overrides if key_of(override) == "strategy"]
    presets = re.findall(r"[\w-]+", words[-1].partition("=")[2]) if words else []
    asked = {filled_key("strategy", preset) or preset: preset for preset in presets}
    lines = []
    for strategy in strategies:
        name, known = strategy.name, signature(type(strategy)).parameters.values()
        values = {of.name: of.default for of in known if of.default is not Parameter.empty}
        values |= {key: value for key, value in nodes[name].items() if not key.startswith("_")}
        preset = asked.get(name, name)
        title = name if preset == name else f"{name}, preset {preset}"
        settings = ", ".join(f"{key}={_value(value)}" for key, value in values.items())
        lines.append(f"{title}: {settings or 'no settings'}")
    return lines


def _value(value: Any) -> str:
    """Write a value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _command(arguments: Arguments[Settings]) -> str:
    """Return the command, as it is typed."""
    settings = arguments.settings
    words = [*arguments.words, f"iteration={settings.iteration}", *arguments.overrides]
    words += [f"count={settings.count}"] if settings.count != Settings.count else []
    words += ["--config-dir", str(arguments.config_dir)] if arguments.config_dir else []
    return shlex.join(["ecrl", "replay", *words, f"output={settings.output}"])


def _print(
    head: Sequence[str], strategies: Sequence[str], tokens: ReplayedTokens, settings: Settings
) -> None:
    """Print what the strategies did."""
    console = Console(highlight=False, markup=False, emoji=False)
    for line in head:
        console.print(line, soft_wrap=True)
    console.print(*strategies, _shares(tokens), *tokens.notes, sep="\n")
    if len(tokens.changed) > 1:
        console.print(_overlaps(tokens))
    if chosen := tokens.chosen:
        for row in _chosen(tokens, chosen, settings.count, console.width):
            console.print(row, soft_wrap=True)
        _show_responses(console, tokens)


def _shares(tokens: ReplayedTokens) -> Table:
    """How many tokens each strategy changed, and what they are like."""
    title = "Tokens that each strategy changed, and their means (nats)"
    table = Table("strategy", "tokens", "share", *_MEANS.values(), title=title, box=SIMPLE)
    everything = list(range(len(tokens.text)))
    for name, index in {"(all)": everything, **tokens.changed}.items():
        means = [_mean([getattr(tokens, column)[i] for i in index]) for column in _MEANS]
        table.add_row(name, str(len(index)), f"{len(index) / len(everything):.2%}", *means)
    return table


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else "–"


def _overlaps(tokens: ReplayedTokens) -> Table:
    table = Table("both of", "tokens", "of the first's", "of the second's", box=SIMPLE)
    for (one, first), (other, second) in combinations(tokens.changed.items(), 2):
        both = len(set(first) & set(second))
        shares = [f"{both / len(x):.1%}" if x else "–" for x in (first, second)]
        table.add_row(f"{one}, {other}", str(both), *shares)
    return table


def _chosen(tokens: ReplayedTokens, chosen: Sequence[int], most: int, width: int) -> Iterator[str | Text]:
    """Write the chosen tokens of the largest covariance."""
    order = sorted(chosen, key=lambda i: -abs(tokens.covariance[i]))[:most]
    yield f"{len(order)} of {len(chosen)} chosen tokens, by the size of their covariance, and what was done:"
    entries = []
    for i in order:
        place = {
            "row": str(tokens.row[i]),
            "position": str(tokens.position[i]),
            "token": repr(tokens.text[i]),
        }
        numbers = {what: f"{getattr(tokens, column)[i]:.4g}" for column, what in _MEANS.items()}
        entries.append((place | numbers, tokens.done[i]))
    yield from listing(entries, width, ["token"])


def _show_responses(console: Console, tokens: ReplayedTokens) -> None:
    """Write the responses with most chosen tokens, these marked."""
    limit, chosen = colour_limit(tokens.covariance), set(tokens.chosen)
    of_row: dict[int, list[int]] = {}
    for i, row in enumerate(tokens.row):
        of_row.setdefault(row, []).append(i)
    counts = {row: len(chosen.intersection(index)) for row, index in of_row.items()}
    marks = "underlined" if has_colours(console) else "in «»"
    console.print(f"Below, chosen tokens are {marks}; covariances: {legend(console, limit)}.", soft_wrap=True)
    for row in sorted(counts, key=lambda row: -counts[row])[:_RESPONSES]:
        index = of_row[row]
        console.print(Rule(f"row {row}: {counts[row]} of {len(index)} tokens chosen"))
        marked = {place for place, i in enumerate(index) if i in chosen}
        texts, values = [tokens.text[i] for i in index], [tokens.covariance[i] for i in index]
        console.print(written(console, texts, values, limit, marked))
