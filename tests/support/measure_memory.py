"""Prints by how many bytes two optimizer steps raise this process's peak memory; see tests/estimate.

python -m tests.support.measure_memory MODEL_DIR MAX_TOKENS CHECKPOINTING
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.engines.base import Completion
from ecrl.policy.decoder_layers import checkpoint_layers
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches
from ecrl.rollout.batching import build_batch
from ecrl.rollout.trajectory import Trajectory, Turn

LENGTH = 256


def main(path: str, max_tokens: int, checkpointing: str) -> None:
    torch.set_num_threads(1)
    _steps(path, 2 * LENGTH, checkpointing, hidden_size=64, intermediate_size=64)  # what a first step loads
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, e.g. of imports, is forgotten
    before = _kib("VmRSS")
    _steps(path, max_tokens, checkpointing)
    print((_kib("VmHWM") - before) * 1024)


def _kib(name: str) -> int:
    """A line of this process's status: ``VmRSS`` is the memory in use, ``VmHWM`` its peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0])


def _steps(path: str, max_tokens: int, checkpointing: str, **smaller: int) -> None:
    """Two optimizer steps of two micro-batches each."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path, **smaller), dtype=torch.float32)
    model = PolicyModel(lm, [1], 0)
    if checkpointing != "false":
        checkpoint_layers(lm, checkpointing)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    micro_batches = pack_micro_batches(_batch(2 * max_tokens // LENGTH).sequences, max_tokens, 0)
    assert len(micro_batches) == 2
    for _ in range(2):
        optimizer.zero_grad()
        for micro_batch in micro_batches:
            logprobs, entropy = model(micro_batch, 1.0)
            (logprobs.sum() + entropy.sum()).backward()
        optimizer.step()


def _batch(sequences: int) -> RolloutBatch:
    """Sequences of 256 tokens, one of them prompt."""
    own = [3 * t % 1000 for t in range(LENGTH - 1)]
    completion = Completion(own, [0.0] * len(own), None, "stop", 0)
    return build_batch(
        [
            Trajectory([i], [Turn([], completion)], i, 0, 0.0, True, False, {}, None, "", "")
            for i in range(sequences)
        ],
        0,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
