"""Compares products of powers of integers by their prime factors: 4^{1010} is 2^{2020}."""

from __future__ import annotations

import re
from collections import Counter

_FACTOR = re.compile(r"(\d{1,4})(?:\s*\^\s*(?:\{\s*(\d{1,6})\s*\}|(\d)))?")
_TIMES = re.compile(r"\s*(?:\\cdot|\\times|\*)\s*")
_MOST_FACTORS = 8


def prime_factors(text: str) -> Counter[int] | None:
    """Return the prime factors of a product of powers and how often each occurs; None for other texts."""
    factors = [_FACTOR.fullmatch(part) for part in _TIMES.split(text.strip(), maxsplit=_MOST_FACTORS)]
    if not any("^" in factor.group() for factor in factors if factor):
        return None
    primes: Counter[int] = Counter()
    for factor in factors:
        if factor is None or int(factor.group(1)) == 0:
            return None
        exponent = factor.group(2) or factor.group(3)
        for prime in _primes(int(factor.group(1))):
            primes[prime] += 1 if exponent is None else int(exponent)
    return +primes


def _primes(number: int) -> list[int]:
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found
