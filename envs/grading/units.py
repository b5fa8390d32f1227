"""Reads the unit at the end of an answer. An answer may omit the unit, but not have another one."""

from __future__ import annotations

import re

from ecrl.envs.grading.numerals import number

#: Each unit, and its other names.
_UNITS = """
    km: kilometer kilometers kilometre kilometres
    cm: centimeter centimeters centimetre centimetres
    mm: millimeter millimeters millimetre millimetres
    dm: decimeter decimeters
    m: meter meters metre metres
    mile: miles mi
    inch: inches in
    foot: feet ft
    yard: yards yd
    kg: kilogram kilograms
    mg: milligram milligrams
    g: gram grams gm
    lb: lbs pound pounds
    ounce: ounces oz
    ton: tons tonne tonnes
    l: L liter liters litre litres
    ml: mL milliliter milliliters
    gallon: gallons
    cup: cups
    pint: pints
    quart: quarts
    teaspoon: teaspoons
    tablespoon: tablespoons
    s: second seconds sec secs
    ms: millisecond milliseconds
    minute: minutes min mins
    h: hour hours hr hrs
    day: days
    week: weeks
    month: months
    year: years yr yrs
    km/h: kmh kph
    m/s:
    mph: mi/h
    dollar: dollars usd
    cent: cents
    euro: euros
    N: newton newtons
    J: joule joules
    W: watt watts
    V: volt volts
    Hz: hertz
    Pa: pascal pascals
    mol: mole moles
    K: kelvin
    degree: degrees
    celsius:
    fahrenheit:
    radian: radians rad
    unit: units
    point: points
    people: person persons
    student: students
    way: ways
    number: numbers
    apple: apples
    book: books
    marble: marbles
    page: pages
"""
_CANONICAL = {
    word: line.partition(":")[0].strip()
    for line in _UNITS.strip().splitlines()
    for word in [line.partition(":")[0].strip(), *line.partition(":")[2].split()]
}
_WORD = "|".join(re.escape(word) for word in sorted(_CANONICAL, key=len, reverse=True))
_LONGEST_SYMBOL = 2  # in names up to this length the case matters: mg is not Mg
_PER = {"h": "h", "hour": "h", "s": "s", "second": "s"}
_UNIT = re.compile(
    rf"\s*\b(?P<before>square|cubic|sq)?\s*(?P<unit>(?i:{_WORD}))\b"
    r"(?:\s*(?:/|\bper\b)\s*(?P<per>h|s|hour|second)\b)?(?:\s*\^\s*\{?\s*(?P<power>-?[1-4])\s*\}?)?\.?$"
)
#: Functions of an angle; the degrees of their argument are not the unit of the whole answer.
FUNCTION = re.compile(r"(?<![a-zA-Z])(?:sqrt|sin|cos|tan|log|ln|exp|max|min|abc)(?![a-zA-Z])")
#: Words beside a number that change it, so that they are no unit.
_SCALE = re.compile(
    "hundreds?|thousands?|.*illions?|dozens?|scores?|pairs?|couples?|tens|ones|.*ths|thirds|halves|quarters"
    "|percents|or|and|more|less|fewer|plus|minus|times"
)
#: A noun in the plural that counts something: eggs, children tickets.
_COUNTED = re.compile(r"\s((?:[a-z]+ )?[a-z]{3,}s)\.?$")
_NUMERAL = re.compile(r"[-+]?\s*[\d.,]+\s")


def split_unit(text: str) -> tuple[str, str]:
    """Return an answer without its unit, and the unit in standard notation, which is empty if there is none.

    What is counted is a unit too, after a plain number: 18 eggs.
    A single letter is a unit only after a plain number and a space: ``3m``, ``\\frac{2}{3}g`` are products.
    """
    match = _UNIT.search(text)
    if match is None:
        return _split_counted(text)
    rest, unit = text[: match.start()], match["unit"]
    before_unit = text[: match.start("before") if match["before"] else match.start("unit")]
    single = len(unit) == 1 and not match["before"] and not match["per"] and not match["power"]
    if not rest.strip() or (single and not _NUMERAL.fullmatch(before_unit)):
        return text, ""
    if not re.search(r"(?:[\d})]|\\pi)\s*$", rest):
        return text, ""
    name = _CANONICAL.get(unit) or (len(unit) > _LONGEST_SYMBOL and _CANONICAL.get(unit.lower()))
    if not name or (name in ("degree", "radian") and FUNCTION.search(rest)):
        return text, ""  # the wrong case, as in Mg, or the angle of a sine
    power = match["power"] or {"square": "2", "sq": "2", "cubic": "3"}.get(match["before"] or "", "1")
    per = f"/{_PER[match['per']]}" if match["per"] else ""
    full = {"mile/h": "mph"}.get(name + per, name + per)
    return rest.strip(), full + (f"^{power}" if power != "1" else "")


def _split_counted(text: str) -> tuple[str, str]:
    match = _COUNTED.search(text)
    if match is None or FUNCTION.search(text) or number(text[: match.start()]) is None:
        return text, ""
    if any(_SCALE.fullmatch(word) for word in match.group(1).split()):
        return text, ""
    return text[: match.start()].strip(), match.group(1)
