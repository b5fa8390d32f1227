"""Compares products of powers and binomial coefficients by their prime factors: 4^{1010} is 2^{2020}."""

from __future__ import annotations

import re
from collections import Counter

_POWER = re.compile(r"(\d{1,4})(?:\s*\^\s*(?:\{\s*(\d{1,6})\s*\}|(\d)))?")
_BINOMIAL = re.compile(r"\\binom\s*\{\s*(\d{1,4})\s*\}\s*\{\s*(\d{1,4})\s*\}|C_\{(\d{1,4})\}\^\{(\d{1,4})\}")
_TIMES = re.compile(r"\s*(?:\\cdot|\\times|\*)\s*|(?<=[\d}])\s*(?=\\binom)")
_MOST_FACTORS = 8


def prime_factors(text: str) -> Counter[int] | None:
    """Return the prime factors of such a product and how often each occurs; None for other texts."""
    parts = _TIMES.split(text.strip(), maxsplit=_MOST_FACTORS)
    if not any("^" in part or "binom" in part for part in parts):
        return None
    primes: Counter[int] = Counter()
    for part in parts:
        factors = _of_power(part) if _POWER.fullmatch(part) else _of_binomial(part)
        if factors is None:
            return None
        primes.update(factors)
    return +primes


def _of_power(text: str) -> Counter[int] | None:
    match = _POWER.fullmatch(text)
    if match is None or int(match[1]) == 0:
        return None
    exponent = int(match[2] or match[3] or 1)
    return Counter({prime: count * exponent for prime, count in _primes(int(match[1])).items()})


def _of_binomial(text: str) -> Counter[int] | None:
    """Read a binomial coefficient n above k, also written C_n^k, as n! / (k! (n − k)!)."""
    match = _BINOMIAL.fullmatch(text)
    n, k = (int(part) for part in match.groups() if part) if match else (0, 1)
    if k > n:
        return None
    found = _of_factorial(n)
    found.subtract(_of_factorial(k))
    found.subtract(_of_factorial(n - k))
    return found


def _of_factorial(number: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for factor in range(2, number + 1):
        found.update(_primes(factor))
    return found


def _primes(number: int) -> Counter[int]:
    found: Counter[int] = Counter()
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found[divisor] += 1
            number //= divisor
        divisor += 1
    if number > 1:
        found[number] += 1
    return found
