"""``ecrl rollouts RUN``: browse what a run drew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ecrl.cli.arguments import Arguments, Command
from ecrl.cli.listing import listing, shortened, shortened_inside
from ecrl.cli.token_colours import colour_limit, legend, written
from ecrl.config.limits import count
from ecrl.errors import UsageError, unknown_name
from ecrl.runs.metrics_file import legible
from ecrl.runs.redrawing import how_to_draw_again
from ecrl.runs.rollouts import COLUMNS, read_rollouts, saved_rollouts, validated_sets
from ecrl.runs.row_filter import (
    KINDS,
    check_metrics,
    checked_column,
    conditions,
    sorted_rows,
)
from ecrl.runs.same_answers import distinct_answers, with_same

#: Columns of the list, with what stands above them.
_SHOWN = {
    "reward": "reward",
    "length": "length",
    "truncated": "cut",
    "entropy": "entropy",
    "advantage": "advantage",
    "covariance": "covariance",
    "same": "same",
    "answer": "answer",
    "gold": "gold",
}
_MEANS = {"reward": "reward", "length": "length", "truncated": "cut off", "entropy": "entropy"}
_ARROW = 9  # columns of the terminal for what stands around prompt and response
_TOKENS = ("token_texts", "covariances", "token_entropy", "engine_entropy")


@dataclass(frozen=True)
class Settings:
    """Settings of ``ecrl rollouts``.

    Attributes:
        iteration: whose responses; None takes the last that has any.
        set: a validation set; None is training.
        where: conditions that all must hold.
        text: regular expression that the response must match.
        sort: a column, falling with a minus before it.
        show: number of the row to show in full.
        count: rows of the list.
    """

    iteration: int | None = count(None, least=0)
    set: str | None = None
    where: str | None = None
    text: str | None = None
    sort: str | None = None
    show: int | None = count(None, least=0)
    count: int = count(20, least=1)  # last: it hides the function


COMMAND = Command(
    name="rollouts",
    help=f"""ecrl rollouts: browse what a run drew

  ecrl rollouts RUN                                         the responses of the last iteration
  ecrl rollouts RUN iteration=17 where=reward=0,truncated=true sort=-length
  ecrl rollouts RUN iteration=17 'where=entropy<0.1' text='so the answer'
  ecrl rollouts RUN set=gsm8k                               the answers of the last validation
  ecrl rollouts RUN iteration=17 show=12                    one response in full

  iteration=N     a row of metrics.jsonl                                       (default: the last)
  set=NAME        a validation set instead of training
  where=A,B,…     conditions that all hold: COLUMN=VALUE, with one of = != < <= > >=; null is none
  text=REGEX      the response matches
  sort=COLUMN     rising; sort=-COLUMN falling                                 (default: as drawn)
  count=N         rows of the list                                             (default: 20)
  show=ROW        a row in full, its tokens by covariance (in colours, or numbers where there are none)
Columns:
{fill(", ".join([*KINDS, "metrics.NAME"]), 98, initial_indent="  ", subsequent_indent="  ")}
`same` is how many responses to the problem give this answer.
Runs write rollouts with log.rollouts=true; docs/rollouts.md says more.
""",
    settings=Settings,
    words=True,
)


def main(arguments: Arguments[Settings]) -> int:
    """List the responses of an iteration, or show one."""
    settings = arguments.settings
    if len(arguments.words) != 1:
        raise UsageError(f"`ecrl rollouts RUN` takes one run, got {len(arguments.words)}.")
    run_dir = Path(arguments.words[0])
    iteration = check_part(run_dir, settings.iteration, settings.set)
    # What a policy writes may look like markup or like an emoji's code.
    console = Console(highlight=False, markup=False, emoji=False)
    if settings.show is None:
        _list(console, run_dir, iteration, settings)
    else:
        _show(console, run_dir, iteration, settings.set, settings.show)
    return 0


def check_part(run_dir: Path, iteration: int | None, of: str | None = None) -> int:
    """Return the iteration whose part is meant: that given, or the last.

    Raises:
        UsageError: there is no such run, or no such validation set.
    """
    if not run_dir.is_dir():
        raise UsageError(f"{str(run_dir)!r} is not a run directory.")
    if of is not None and of not in (known := validated_sets(run_dir)):
        if not known:
            raise UsageError(f"{run_dir} has no rollouts of a validation, so that set={of} names none.")
        raise unknown_name("validation set", of, known)
    saved = saved_rollouts(run_dir, of)
    return iteration if iteration is not None else saved[-1] if saved else 0


def _list(console: Console, run_dir: Path, iteration: int, settings: Settings) -> None:
    wanted = conditions(settings.where) if settings.where else []
    pattern = _pattern(settings.text) if settings.text else None
    order = settings.sort and checked_column(settings.sort.removeprefix("-"))
    rows = with_same(read_rollouts(run_dir, iteration, settings.set, list(COLUMNS)))
    check_metrics([*(condition.column for condition in wanted), *([order] if order else [])], rows)
    numbered: list[Mapping[str, Any]] = [{**row, "row": number} for number, row in enumerate(rows)]
    found = [row for row in numbered if all(condition.holds(row) for condition in wanted)]
    if pattern is not None:
        found = [row for row in found if pattern.search(row["response"])]
    if settings.sort:
        found = sorted_rows(found, settings.sort)
    what = f"{len(found)} of {len(rows)} responses, {_place(iteration, settings.set)}"
    console.print(what + (f"; the first {settings.count}" if len(found) > settings.count else ""))
    if not found:
        return
    for line in _lines(found[: settings.count], console.width):
        console.print(line, soft_wrap=True)
    console.print(_summary(found), soft_wrap=True)
    name = f" set={settings.set}" if settings.set else ""
    console.print(
        f"One in full: ecrl rollouts {legible(run_dir)} iteration={iteration}{name} show={found[0]['row']}",
        soft_wrap=True,
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"text={text!r} is no regular expression: {error}.") from None


def _place(iteration: int, of: str | None) -> str:
    return f"iteration {iteration}" + (f", validation set {of}" if of else "")


def _lines(rows: Sequence[Mapping[str, Any]], width: int) -> Iterable[Text]:
    """Write each row's numbers, and below them what is asked and what was answered."""
    shown = [name for name in _SHOWN if any(row[name] is not None and row[name] is not False for row in rows)]
    prompts = _differing([row["prompt"] for row in rows])
    entries = []
    for row, prompt in zip(rows, prompts, strict=True):
        asked = shortened(prompt, width // 2)
        answered = shortened_inside(_one_line(row["response"]), width - cell_len(asked) - _ARROW)
        cells = {_SHOWN[name]: _cell(row[name]) for name in shown}
        entries.append(({"row": str(row["row"]), **cells}, f"{asked} → {answered}"))
    return listing(entries, width, [_SHOWN[name] for name in shown if name in ("answer", "gold")])


def _differing(prompts: Sequence[str]) -> list[str]:
    """Write prompts on one line each, without the first and last lines that all of them share."""
    split = {prompt: prompt.removesuffix("\n").split("\n") for prompt in prompts}
    texts = list(split.values())
    least = min(map(len, texts)) - 1 if len(texts) > 1 else 0
    first = next((i for i in range(least) if len({x[i] for x in texts}) > 1), least)
    last = next((i for i in range(least - first) if len({x[-1 - i] for x in texts}) > 1), least - first)
    return [_one_line("\n".join(split[p][first : len(split[p]) - last])) for p in prompts]


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for name, what in _MEANS.items():
        values = [row[name] for row in rows if row[name] is not None]
        if any(values):
            parts.append(f"{what} {sum(values) / len(values):.3g}")
    return f"Means: {', '.join(parts)}, distinct {distinct_answers(rows):.3g}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4g}" if isinstance(value, float) else _one_line(str(value))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "⏎" if c == "\n" else "□" for c in text)


def _show(console: Console, run_dir: Path, iteration: int, of: str | None, number: int) -> None:
    rows = read_rollouts(run_dir, iteration, of, [*COLUMNS, *_TOKENS])
    if number >= len(rows):
        raise UsageError(f"show={number}: there are {len(rows)} rows, from 0 to {len(rows) - 1}.")
    row = rows[number]
    table = Table("column", "value", "meaning", title=f"row {number}, {_place(iteration, of)}")
    for name, (_, meaning) in COLUMNS.items():
        value = row[name]
        if name == "metrics":
            value = ", ".join(f"{m['name']} {m['value']:.4g}" for m in value) or None
        if name not in ("prompt", "response") and value is not None:
            table.add_row(name, Text(_cell(value) or "no"), meaning)
    console.print(table)
    for name in ("prompt", "response"):
        console.print(Rule(name), Text(_legible_lines(row[name].removesuffix("\n"))))
    _show_tokens(console, row, rows)
    if "token_texts" not in row:
        again = f" {how_to_draw_again(run_dir, iteration)}" if of is None else ""
        console.print(Rule())
        console.print(f"Its tokens are not on disk (log.rollout_tokens).{again}", soft_wrap=True)


def _legible_lines(text: str) -> str:
    return "\n".join(map(_one_line, text.split("\n")))


def _show_tokens(console: Console, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the tokens once more with their covariances, or their entropies where none was trained on.

    Colours end where they do for all tokens of the iteration, so that rows can be compared.
    """
    for name in ("covariances", "token_entropy", "engine_entropy"):
        if (values := row.get(name)) is not None:
            limit = colour_limit([x for of in rows for x in of[name] or ()])
            console.print(Rule(f"tokens by {name}: {legend(console, limit)}"))
            console.print(written(console, row["token_texts"], values, limit))
            return
