"""Checksums of weights: they verify that an engine holds exactly what the trainer sent.

Trainer and engine compute them from the tensors' bits on the tensors' own devices. They are exact integers,
so equal weights have equal checksums on every device and in every process. One pass reads each tensor once,
in words of 64 bits; the sums stay on the device, and all of them are read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypedDict

import torch
from torch import Tensor

from ecrl.errors import EcrlError

#: Words of 64 bits that are summed at once: 8 MiB, so that the products stay in the cache.
_BLOCK = 1 << 20


class Receipt(TypedDict):
    """An engine's report of the weights that its forward pass reads.

    Attributes:
        version: version of the last load; −1 during a load and after one that failed.
        checksums: checksum of each requested tensor; None if the engine holds no tensor of that shape.
        unsent: parameters of the engine that none of the requested tensors fills.
    """

    version: int
    checksums: dict[str, int | None]
    unsent: list[str]


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """Sum a tensor's bits: Σ_b F_b · Σ_i fold(w_bi · F_i) modulo 2⁶⁴, for the words ``w_bi`` of blocks ``b``.

    The factors F are odd, and ``fold(x) = x ⊕ (x ≫ 32)`` can be undone, so a change of one word always
    changes the sum; any other change leaves it equal only by chance, at most about once in 2³².

    Returns:
        A number of 64 bits ``[]``, on the tensor's device; see :func:`read`.
    """
    words = _words(tensor)
    factors = _factors(_BLOCK, words.device)
    sums = []
    for start in range(0, max(len(words), 1), _BLOCK):
        block = words[start : start + _BLOCK]
        mixed = block * factors[: len(block)]
        halves = mixed.view(torch.int32).view(-1, 2)  # low, high
        halves[:, 0].bitwise_xor_(halves[:, 1])
        sums.append(mixed.sum())
    return (torch.stack(sums) * _factors(len(sums), words.device)).sum()


def read(sums: Mapping[str, Tensor | None]) -> dict[str, int | None]:
    """Read checksums from their device, which is waited for once.

    Args:
        sums: results of :func:`checksum` on one device, by name.
    """
    there = {name: total for name, total in sums.items() if total is not None}
    values = torch.stack(list(there.values())).tolist() if there else []
    return {**dict.fromkeys(sums), **dict(zip(there, values, strict=True))}


def _words(tensor: Tensor) -> Tensor:
    """View a tensor's bytes as int64 ``[n]``; copied where they do not fill or start at whole words."""
    raw = tensor.detach().reshape(-1).view(torch.uint8)
    if len(raw) % 8 == 0 and raw.storage_offset() % 8 == 0:
        return raw.view(torch.int64)
    words = torch.zeros(-(-len(raw) // 8), dtype=torch.int64, device=raw.device)
    words.view(torch.uint8)[: len(raw)] = raw
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
        for name, tensor in weights:
            cast = tensor.detach().to(dtype)
            self.shapes[name] = list(cast.shape)
            self.sums[name] = checksum(cast)
            yield name, cast

    def check(self, receipt: Receipt, version: int) -> None:
        """Compare with the engine's report.

        Raises:
            EcrlError: the engine holds another version, a tensor differs, or a parameter was never sent.
        """
        held: Mapping[str, int | None] = receipt["checksums"]
        wrong = [name for name, total in read(self.sums).items() if held.get(name) != total]
        if wrong:
            raise EcrlError(
                f"The engine's weights differ from those sent as version {version}: {_some(wrong)} "
                f"({len(wrong)} of {len(self.sums)} tensors) are stale, corrupted or packed away."
            )
        if receipt["unsent"]:
            raise EcrlError(
                f"The engine needs weights that version {version} did not bring: {_some(receipt['unsent'])}."
            )
        if receipt["version"] != version:
            raise EcrlError(
                f"The engine reports weights of version {receipt['version']}, not {version} as it was sent."
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
