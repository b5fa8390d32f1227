"""Checksums that show that an engine holds exactly the weights that it was sent.

Trainer and engine compute them from the tensors' bits on the tensors' own devices. They are exact integers,
so equal weights have equal checksums on every device and in every process. One pass reads each tensor once,
in words of 64 bits; the sums stay on the device, and all of them are read together. The sums of the parts
that the workers of one engine hold add up to that of the whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypedDict

import torch
from torch import Tensor

from ecrl.errors import EcrlError
from ecrl.policy.weights import HFWeights

#: Words of 64 bits that are summed at once: 8 MiB, so that the products stay in the cache.
_BLOCK = 1 << 20
#: Bytes of a word.
WORD = 8

#: Part of a tensor: first row, first column, and checksum at that place.
Part = Sequence[int]


class Receipt(TypedDict):
    """A worker's report of the weights that its forward pass reads.

    Attributes:
        version: version of the last load; −1 during a load and after one that failed.
        checksums: for each requested tensor the part that it holds; None if it holds none that fits.
        unsent: parameters of the engine that none of the requested tensors fills.
    """

    version: int
    checksums: dict[str, Part | None]
    unsent: list[str]


@torch.no_grad()
def checksum(tensor: Tensor, row: int = 0, column: int = 0) -> Tensor:
    """Sum a tensor's bits: Σ_r F_r · Σ_j fold(w_rj · F_j) modulo 2⁶⁴, for the words ``w_rj`` of rows ``r``.

    The factors F are odd, and ``fold(x) = x ⊕ (x ≫ 32)`` can be undone, so a change of one word always
    changes the sum; any other change leaves it equal only by chance, at most about once in 2³².

    Args:
        tensor: a tensor, or the part of one from a row and column on. A row is along the last dimension, and
            filled up to whole words; in a vector each element is a row.
        row: first row.
        column: first column; it begins a word.

    Returns:
        A number of 64 bits ``[]``, on the tensor's device; see :func:`read`.
    """
    words = _words(tensor)
    rows, width = words.shape
    first = column * tensor.element_size() // WORD
    along = _factors(first + width, words.device)[first:]
    down = _factors(row + rows, words.device)[row:]
    count = max(_BLOCK // max(width, 1), 1)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for start in range(0, rows, count):
        mixed = words[start : start + count] * along
        halves = mixed.view(torch.int32).view(-1, 2)  # low, high
        halves[:, 0].bitwise_xor_(halves[:, 1])
        total += (mixed.sum(1) * down[start : start + count]).sum()
    return total


def read(sums: Mapping[str, Tensor | None]) -> dict[str, int | None]:
    """Read checksums from their device, which is waited for once.

    Args:
        sums: results of :func:`checksum` on one device, by name.
    """
    there = {name: total for name, total in sums.items() if total is not None}
    values = torch.stack(list(there.values())).tolist() if there else []
    return {**dict.fromkeys(sums), **dict(zip(there, values, strict=True))}


def _words(tensor: Tensor) -> Tensor:
    """View a tensor's rows as int64 ``[rows, words]``; copied where rows do not fill or start at words."""
    last = tensor.shape[-1] if tensor.dim() > 1 else 1
    raw = tensor.detach().reshape(tensor.numel() // max(last, 1), last).contiguous().view(torch.uint8)
    if raw.shape[1] % WORD == 0 and raw.storage_offset() % WORD == 0:
        return raw.view(torch.int64)
    words = torch.zeros(len(raw), -(-raw.shape[1] // WORD), dtype=torch.int64, device=raw.device)
    words.view(torch.uint8)[:, : raw.shape[1]] = raw
    return words


@cache
def _factors(count: int, device: torch.device) -> Tensor:
    """Odd pseudo-random int64 numbers ``[count]``."""
    x = torch.arange(1, count + 1, device=device) * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return (x ^ (x >> 31)) | 1


@dataclass
class WeightManifest:
    """Names, shapes and checksums of the tensors that are sent to an engine.

    Attributes:
        shapes: shape of each tensor, by its name in the HF checkpoint.
        sums: checksum of each tensor in the engine's precision, by name, on its device.
    """

    shapes: dict[str, list[int]] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def record(
        self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype
    ) -> Iterator[tuple[str, Tensor]]:
        """Cast each tensor to the engine's precision, record it, and yield it."""
        for name, tensor in weights.cast(dtype) if isinstance(weights, HFWeights) else weights:
            cast = tensor.detach().to(dtype)
            self.shapes[name] = list(cast.shape)
            self.sums[name] = checksum(cast)
            yield name, cast

    def check(self, receipts: Sequence[Receipt], version: int) -> None:
        """Compare with the reports of all workers of an engine.

        Raises:
            EcrlError: a worker holds another version, a tensor differs, or a parameter was never sent.
        """
        for receipt in receipts:
            if receipt["unsent"]:
                raise EcrlError(
                    f"The engine needs weights that version {version} did not bring: "
                    f"{_some(receipt['unsent'])}."
                )
        wrong = [name for name, total in read(self.sums).items() if _whole(receipts, name) != total]
        if wrong:
            raise EcrlError(
                f"The engine's weights differ from those sent as version {version}: {_some(wrong)} "
                f"({len(wrong)} of {len(self.sums)} tensors) are stale, corrupted or packed away."
            )
        for receipt in receipts:
            if receipt["version"] != version:
                raise EcrlError(
                    f"The engine reports weights of version {receipt['version']}, not {version} as it was "
                    "sent."
                )


def _whole(receipts: Sequence[Receipt], name: str) -> int | None:
    """Add up the parts of a tensor; None if one is missing or those of one place differ.

    Workers that hold the same part report the same place, which counts once.
    """
    parts: dict[tuple[int, int], int] = {}
    for receipt in receipts:
        part = receipt["checksums"].get(name)
        if part is None or parts.setdefault((part[0], part[1]), part[2]) != part[2]:
            return None
    # From 64 unsigned bits to the signed number that torch reads.
    return (sum(parts.values()) + 2**63) % 2**64 - 2**63


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
