"""Texts that a verifier must survive."""

from __future__ import annotations

HOSTILE = [
    "",
    "\x00" * 1000,
    "(" * 200_000,
    "(" * 100 + "1" + ")" * 100,
    "9**9**9**9**9",
    "9" * 200_000,
    "=" * 200_000,
    " " * 200_000 + "1",
    "1=" * 100_000 + "x",
    "__import__('os').system('false')",
    "-" * 200_000 + "1",
    "٣+٥*٧",
    "³",
    "\ud800\U0001f600",
    "nan",
    "inf",
    "1e9",
    "0x16",
    "True",
]
