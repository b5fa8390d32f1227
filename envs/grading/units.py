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
    mph:
    km/h: kmh kph
    nm: nanometer nanometers
    μm: µm um micrometer micrometers micron microns
    Å: angstrom angstroms
    eV:
    keV:
    MeV:
    GeV:
    erg: ergs
    kJ: kilojoule kilojoules
    kW: kilowatt kilowatts
    kWh:
    kPa:
    MPa:
    atm:
    kHz:
    MHz:
    GHz:
    mV:
    kV:
    mA:
    rpm:
    AU:
    parsec: parsecs
    μs: µs
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
#: Names of quotients.
_QUOTIENTS = {"mph": {"mile": 1, "h": -1}, "km/h": {"km": 1, "h": -1}}
_POWER = r"(?:\s*\^\s*\{?\s*(-?[1-4])\s*\}?)?"
_UNIT = re.compile(
    rf"\s*\b(?P<before>square|cubic|sq\.?)?\s*(?P<unit>(?i:{_WORD}))\b{_POWER}\.?$",
)
#: Several units: m/s, m s^{-2}, miles per hour.
_BETWEEN = r"(\s*(?:/|\bper\b)\s*|\s*(?:\\cdot|\*|·)\s*|\s+)"
_SEVERAL = re.compile(rf"\s*\b(?i:{_WORD})\b{_POWER}(?:{_BETWEEN}(?i:{_WORD})\b{_POWER}){{1,4}}\.?$")
_ONE_OF_SEVERAL = re.compile(rf"{_BETWEEN}?(?<![a-zA-Z])((?i:{_WORD}))\b{_POWER}")
_LONGEST_UNIT = 60  # characters
#: Functions of an angle; the degrees of their argument are not the unit of the whole answer.
FUNCTION = re.compile(r"(?<![a-zA-Z])(?:sqrt|sin|cos|tan|log|ln|exp|max|min|abc)(?![a-zA-Z])")
#: Words beside a number that change it, so that they are no unit.
_SCALE = re.compile(
    "hundreds?|thousands?|.*illions?|dozens?|scores?|pairs?|couples?|tens|ones|.*ths|thirds|halves|quarters"
    "|percents|or|and|more|less|fewer|plus|minus|times"
)
#: A noun in the plural that counts something: eggs, children tickets.
_COUNTED = re.compile(r"\s((?:[a-z]+ )?[a-z]{3,}s(?: per [a-z]+)?)\.?$")
_ENDS_QUANTITY = re.compile(r"(?:[\d})]|\\pi)\s*$")
_NUMERAL = re.compile(r"[-+]?\s*[\d.,]+(?:[eE]-?\d+|\s*\\(?:times|cdot) ?10 ?\^ ?(?:\{ ?-?\d+ ?\}|\d))?\s")


def split_unit(text: str) -> tuple[str, str]:
    """Return an answer without its unit, and the unit in standard notation, which is empty if there is none.

    What is counted is a unit too, after a plain number: 18 eggs.
    A single letter is a unit only after a plain number and a space: ``3m``, ``\\frac{2}{3}g`` are products.
    """
    if found := _split_several(text):
        return found
    match = _UNIT.search(text)
    if match is None:
        return _split_counted(text)
    rest, unit, power = text[: match.start()], match["unit"], match.group(3)
    before_unit = text[: match.start("before") if match["before"] else match.start("unit")]
    single = len(unit) == 1 and not match["before"] and not power
    if not rest.strip() or (single and not _NUMERAL.fullmatch(before_unit)):
        return text, ""
    name = _canonical(unit)
    of_sine = name in ("degree", "radian") and FUNCTION.search(rest)
    if not name or of_sine or not _ENDS_QUANTITY.search(rest):
        return _split_counted(text)
    before = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3}.get(match["before"] or "", 1)
    return rest.strip(), _standard({name: int(power or before)})


def _split_several(text: str) -> tuple[str, str] | None:
    """Split a unit of several symbols off; None if there is none, or if it may be a product: 2 m g."""
    begin = max(0, len(text) - _LONGEST_UNIT)
    match = _SEVERAL.search(text, begin)
    if match is None or not _ENDS_QUANTITY.search(text[: match.start()]):
        return None
    rest = text[: match.start()].strip()
    powers: dict[str, int] = {}
    short, divided = True, False
    for between, unit, power in _ONE_OF_SEVERAL.findall(match.group()):
        per = between.strip() in ("/", "per")
        name = _canonical(unit)
        if not name:
            return None
        powers[name] = powers.get(name, 0) + int(power or 1) * (-1 if per else 1)
        short = short and len(unit) == 1
        divided = divided or per or power.startswith("-")
    physical = re.search(r"10\s*\^|\d[eE]-?\d", rest)  # 6.63e-34 J s
    product = not divided or number(rest) is None or re.search("frac|/", rest) or set("ghl") & set(powers)
    if short and product and not physical and not match.group().strip().startswith("m/s"):
        return None
    return rest, _standard(powers)


def _canonical(unit: str) -> str:
    """Return the standard name of a unit; empty if its case is wrong, as in Mg."""
    return _CANONICAL.get(unit) or (_CANONICAL.get(unit.lower(), "") if len(unit) > _LONGEST_SYMBOL else "")


def _standard(powers: dict[str, int]) -> str:
    """Write a product of units in alphabetical order."""
    total: dict[str, int] = {}
    for name, power in powers.items():
        for part, its in _QUOTIENTS.get(name, {name: 1}).items():
            total[part] = total.get(part, 0) + its * power
    return " ".join(f"{name}^{power}" for name, power in sorted(total.items()) if power)


def _split_counted(text: str) -> tuple[str, str]:
    match = _COUNTED.search(text)
    if match is None or FUNCTION.search(text) or number(text[: match.start()]) is None:
        return text, ""
    if any(_SCALE.fullmatch(word) for word in match.group(1).split()):
        return text, ""
    return text[: match.start()].strip(), match.group(1)
