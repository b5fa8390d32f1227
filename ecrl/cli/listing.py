"""Lists in the terminal that read well at any width: each entry a line of numbers, and a text below it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.text import Text

_GAP, _INDENT = 2, 6
_LEAST = 4  # columns of the terminal for a cell that may be shortened


def listing(
    entries: Sequence[tuple[Mapping[str, str], str]], width: int, texts: Collection[str] = ()
) -> Iterable[Text]:
    """Yield the lines of a list: a heading, and for each entry its numbers and its text.

    Args:
        entries: cells by heading, the same headings in each, and the text below; "" for none.
        width: of the terminal.
        texts: headings of the columns whose cells are shortened where the line would be too long.
    """
    headings = list(entries[0][0])
    widths = {
        name: max(cell_len(x) for x in (name, *(cells[name] for cells, _ in entries))) for name in headings
    }
    left = width - sum(widths[name] + _GAP for name in headings if name not in texts)
    for name in texts:
        widths[name] = min(widths[name], max(left // len(texts) - _GAP, len(name), _LEAST))
    yield Text(_line({name: name for name in headings}, widths), "bold", no_wrap=True)
    for cells, below in entries:
        yield Text(_line(cells, widths), no_wrap=True)
        room = width - _INDENT
        for line in [below] if cell_len(below) <= room else wrap(below, room):
            yield Text(" " * _INDENT + line, "dim", no_wrap=True)


def shortened(text: str, room: int) -> str:
    """Return a text without its end where it is longer than ``room`` columns of the terminal."""
    return text if cell_len(text) <= room else set_cell_size(text, max(room - 1, 0)) + "…"


def shortened_inside(text: str, room: int) -> str:
    """Return a text without its middle where it is longer than ``room`` columns of the terminal."""
    if cell_len(text) <= room:
        return text
    end = set_cell_size(text[::-1], (room - 3) // 2)[::-1]
    return f"{set_cell_size(text, room - 3 - cell_len(end))} … {end}"


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    parts = (shortened(cells[name], size) for name, size in widths.items())
    return "".join(
        " " * (_GAP + size - cell_len(part)) + part for part, size in zip(parts, widths.values(), strict=True)
    )
