"""Tokens in the terminal with a number each: as a colour, or in figures where there are no colours."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.text import Text

_SHADES = 5
_RED, _BLUE = (52, 88, 124, 160, 196), (17, 18, 19, 20, 21)  # of the 256 colours, from dark to bright
_VISIBLE = {"\n": "⏎\n", "\t": "⇥", "\r": "␍", "\x1b": "␛"}


def legend(console: Console, limit: float) -> str:
    """Say how ``written`` shows the numbers."""
    if has_colours(console):
        return f"red above 0, blue below, up to {limit:.3g}"
    return f"in braces from {limit / (_SHADES + 1):.2g} on"


def written(
    console: Console,
    texts: Sequence[str],
    values: Sequence[float],
    limit: float,
    marked: Collection[int] = (),
) -> Text:
    """Write tokens one after the other.

    Args:
        console: on which they are to be shown.
        texts: of the tokens.
        values: a number for each.
        limit: where colours end.
        marked: indices of the tokens that are underlined; without colours in «».
    """
    result = Text()
    colours = has_colours(console)
    for index, (text, value) in enumerate(zip(texts, values, strict=True)):
        visible, shade = _visible(text), _shade(value, limit)
        if colours:
            style = f"white on color({(_RED if value > 0 else _BLUE)[shade - 1]})" if shade else "default"
            result.append(visible, f"{style} underline" if index in marked else style)
        else:
            line_end = "\n" if visible.endswith("\n") else ""
            shown = visible.removesuffix("\n")
            shown = f"«{shown}»" if index in marked else shown
            result.append(shown + (f"{{{value:.2g}}}" if shade else "") + line_end)
    return result


def has_colours(console: Console) -> bool:
    """Whether a console shows colours: not in a pipe, not under NO_COLOR."""
    return console.color_system is not None and not console.no_color


def colour_limit(values: Sequence[float]) -> float:
    """Return where colours end: a hundredth of the tokens is beyond, so that a few do not hide the others."""
    rising = sorted(abs(value) for value in values)
    return rising[int(0.99 * (len(rising) - 1))] if rising else 0.0


def _visible(text: str) -> str:
    """Write what a terminal would obey, not show."""
    return "".join(c if c.isprintable() else _VISIBLE.get(c, "□") for c in text)


def _shade(value: float, limit: float) -> int:
    """Return how strong a number's colour is; 0 for none."""
    return min(int(abs(value / limit) * (_SHADES + 1)), _SHADES) if limit else 0
