"""Checksums of weights: they verify that an engine holds exactly what the trainer sent.

Trainer and engine compute them from the tensors' bits on the tensors' own devices, so nothing is copied,
and equal weights have equal checksums on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from ecrl.errors import EcrlError

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Elements summed at once; this limits the 64-bit temporaries to some tens of megabytes.
_CHUNK = 1 << 22


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
def checksum(tensor: Tensor) -> int:
    """Sum a tensor's bits, each element times an odd 64-bit factor for its position, modulo 2⁶⁴.

    A change of one element, or a swap of two unequal elements, always changes the sum; any other change
    changes it with probability 1 − 2⁻⁶³.
    """
    flat = tensor.detach().reshape(-1)
    bits = flat.view(_BITS[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, bits.numel(), _CHUNK):
        part = bits[start : start + _CHUNK].long()
        total += (part * _factors(start, part.numel(), flat.device)).sum()
    return int(total)


def _factors(start: int, count: int, device: torch.device) -> Tensor:
    """Odd pseudo-random int64 numbers ``[count]`` for the positions from ``start`` on."""
    x = torch.arange(start + 1, start + count + 1, device=device) * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return (x ^ (x >> 31)) | 1


@dataclass
class WeightManifest:
    """Names, shapes and checksums of the tensors that are sent to an engine.

    Attributes:
        shapes: shape of each tensor, by its name in the HF checkpoint.
        checksums: checksum of each tensor in the engine's precision, by name.
    """

    shapes: dict[str, list[int]] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)

    def record(
        self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype
    ) -> Iterator[tuple[str, Tensor]]:
        """Cast each tensor to the engine's precision, record it, and yield it."""
        for name, tensor in weights:
            cast = tensor.detach().to(dtype)
            self.shapes[name] = list(cast.shape)
            self.checksums[name] = checksum(cast)
            yield name, cast

    def check(self, receipt: Receipt, version: int) -> None:
        """Compare with the engine's report.

        Raises:
            EcrlError: the engine holds another version, a tensor differs, or a parameter was never sent.
        """
        held: Mapping[str, int | None] = receipt["checksums"]
        wrong = [name for name, total in self.checksums.items() if held.get(name) != total]
        if wrong:
            raise EcrlError(
                f"The engine's weights differ from those sent as version {version}: {_some(wrong)} "
                f"({len(wrong)} of {len(self.checksums)} tensors) are stale, corrupted or packed away."
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
