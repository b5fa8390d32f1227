"""Checksums of weights, by which an engine proves that it holds what the trainer sent.

Both sides compute them on the device where the tensor lies, from its bits, so that nothing is copied
and equal weights give equal numbers on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from ecrl.errors import EcrlError

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Elements summed at once: bounds the 64-bit temporaries to some tens of megabytes.
_CHUNK = 1 << 22


class Receipt(TypedDict):
    """What an engine says of the weights that its forward pass reads.

    Attributes:
        version: stamped by the last load; −1 while a load is under way or after it failed.
        checksums: of each tensor that was asked for; None where the engine holds none of that shape.
        unsent: the engine's parameters that no asked-for tensor fills.
    """

    version: int
    checksums: dict[str, int | None]
    unsent: list[str]


@torch.no_grad()
def checksum(tensor: Tensor) -> int:
    """Sum a tensor's bits, each element times an odd 64-bit weight of its position, modulo 2⁶⁴.

    A change of one element, or a swap of two unequal ones, always changes the sum; any other change
    does with probability 1 − 2⁻⁶³.
    """
    flat = tensor.detach().reshape(-1)
    bits = flat.view(_BITS[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, bits.numel(), _CHUNK):
        part = bits[start : start + _CHUNK].long()
        total += (part * _weights(start, part.numel(), flat.device)).sum()
    return int(total)


def _weights(start: int, count: int, device: torch.device) -> Tensor:
    """Odd pseudo-random numbers ``[count]``, int64, of the positions from ``start`` on."""
    x = torch.arange(start + 1, start + count + 1, device=device) * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return (x ^ (x >> 31)) | 1


@dataclass
class WeightManifest:
    """Names, shapes and checksums of tensors on their way to an engine.

    Attributes:
        shapes: of each tensor, by its name in the HF checkpoint.
        checksums: of each tensor, in the engine's precision.
    """

    shapes: dict[str, list[int]] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)

    def note(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Cast each tensor to the engine's precision and write it down as it passes."""
        for name, tensor in weights:
            cast = tensor.detach().to(dtype)
            self.shapes[name] = list(cast.shape)
            self.checksums[name] = checksum(cast)
            yield name, cast

    def check(self, receipt: Receipt, version: int) -> None:
        """Compare with what the engine says it holds.

        Raises:
            EcrlError: it holds another version, or a tensor differs or was never sent.
        """
        held: Mapping[str, int | None] = receipt["checksums"]
        wrong = [name for name, total in self.checksums.items() if held.get(name) != total]
        if wrong:
            raise EcrlError(
                f"The engine holds other weights than it was sent as version {version}: {_some(wrong)} "
                f"({len(wrong)} of {len(self.checksums)} tensors) are stale, corrupted or packed away."
            )
        if receipt["unsent"]:
            raise EcrlError(
                f"The engine needs weights that version {version} did not bring: {_some(receipt['unsent'])}."
            )
        if receipt["version"] != version:
            raise EcrlError(
                f"The engine confirmed weights of version {receipt['version']}, not {version} as it was sent."
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
