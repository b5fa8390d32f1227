"""How tokens and log-probabilities go over the wire: little-endian arrays in base64, about 11 B a token."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np


def pack_ints(values: Sequence[int]) -> str:
    """Encode token ids as int32.

    Raises:
        OverflowError: one does not fit.
    """
    return _pack(values, "<i4")


def unpack_ints(text: str) -> list[int]:
    """Decode token ids.

    Raises:
        ValueError: it is no such array.
    """
    return _unpack(text, "<i4")


def pack_floats(values: Sequence[float]) -> str:
    """Encode log-probabilities as float32."""
    return _pack(values, "<f4")


def unpack_floats(text: str) -> list[float]:
    """Decode log-probabilities.

    Raises:
        ValueError: it is no such array.
    """
    return _unpack(text, "<f4")


def _pack(values: Sequence[float], dtype: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes()).decode("ascii")


def _unpack(text: str, dtype: str) -> list[Any]:
    values: list[Any] = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).tolist()
    return values
