"""Tokens in the terminal, coloured by a number: red above 0, blue below."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.text import Text

_SHADES = 5
_RED, _BLUE = (52, 88, 124, 160, 196), (17, 18, 19, 20, 21)  # of the 256 colours, from dark to bright
VISIBLE = str.maketrans({"\n": "⏎\n", "\t": "⇥", "\r": "␍", "\x1b": "␛"})


def coloured(
    texts: Sequence[str], values: Sequence[float], limit: float, marked: Collection[int] = ()
) -> Text:
    """Write tokens one after the other.

    Args:
        texts: of the tokens.
        values: by which they are coloured.
        limit: where colours end.
        marked: numbers of the tokens that are underlined.
    """
    result = Text()
    for number, (text, value) in enumerate(zip(texts, values, strict=True)):
        style = _style(value / limit if limit else 0.0)
        result.append(text.translate(VISIBLE), f"{style} underline" if number in marked else style)
    return result


def colour_limit(values: Sequence[float]) -> float:
    """Return where colours end: a hundredth of the tokens is beyond, so that a few do not hide the others."""
    rising = sorted(abs(value) for value in values)
    return rising[int(0.99 * (len(rising) - 1))] if rising else 0.0


def _style(share: float) -> str:
    shade = min(int(abs(share) * (_SHADES + 1)), _SHADES)
    return "default" if shade == 0 else f"white on color({(_RED if share > 0 else _BLUE)[shade - 1]})"
