"""The usual GPUs, by NVIDIA's data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A kind of GPU.

    Attributes:
        memory: of the card, in GiB; the gigabytes of data sheets mean these.
        flops: speed of dense 16-bit matrix products with sums in float32, FLOP/s.
        full_flops: speed in float32 without tensor cores, FLOP/s.
        bandwidth: memory bandwidth, bytes/s.
        bf16: whether it has bfloat16; ``flops`` is float16's where it has not.
        sequences: number of sequences that vLLM runs at once by default.
    """

    memory: float
    flops: float
    full_flops: float
    bandwidth: float
    bf16: bool = True
    sequences: int = 256


#: Data sheets of V100, T4, A100, A10, RTX A6000, L4, L40S, RTX 6000 Ada, H100, H200 and HGX B200; for GeForce
#: the white papers of GA102, Ada and RTX Blackwell. Those with HBM are the SXM versions. Tensor cores without
#: sparsity, with which data sheets show twice the speed. T4, A10, L4 and L40S keep a sixteenth of their
#: memory for error correction. Sequences: vLLM's defaults.
CARDS = {
    "h100": Card(80, 989e12, 67e12, 3.35e12, sequences=1024),
    "h200": Card(141, 989e12, 67e12, 4.8e12, sequences=1024),
    "b200": Card(180, 2250e12, 75e12, 7.7e12, sequences=1024),
    "a100": Card(80, 312e12, 19.5e12, 2.04e12),
    "a100_40": Card(40, 312e12, 19.5e12, 1.555e12),
    "l40s": Card(45, 362e12, 91.6e12, 0.864e12),
    "l4": Card(22.5, 121e12, 30.3e12, 0.3e12),
    "a10": Card(22.5, 125e12, 31.2e12, 0.6e12),
    "a6000": Card(48, 155e12, 38.7e12, 0.768e12),
    "rtx6000_ada": Card(48, 364e12, 91.1e12, 0.96e12),
    "rtx5090": Card(32, 209.5e12, 104.8e12, 1.792e12),
    "rtx4090": Card(24, 165e12, 82.6e12, 1.008e12),
    "rtx3090": Card(24, 71e12, 35.6e12, 0.936e12),
    "v100": Card(32, 125e12, 15.7e12, 0.9e12, bf16=False),
    "v100_16": Card(16, 125e12, 15.7e12, 0.9e12, bf16=False),
    "t4": Card(15, 65e12, 8.1e12, 0.32e12, bf16=False),
}
