"""Engines for tests."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion
from ecrl.engines.hf import HFEngine
from ecrl.policy.model import PolicyModel


class RoundedEngine(HFEngine):
    """Draws as the default engine; rounds its log-probs to bfloat16 and reports no entropies, as vLLM may."""

    logprobs_exact = False  # type: ignore[assignment]
    reports_entropy = False

    def draw(self, *args: Any) -> list[Completion]:
        return [
            replace(c, logprobs=torch.tensor(c.logprobs).bfloat16().tolist(), entropy=None)
            for c in super().draw(*args)
        ]


class DisaggregatedEngine(HFEngine):
    """A real engine with a copy of the weights: it draws in a thread while the policy trains."""

    shares_weights = False
    disaggregated = True
    threads: ClassVar[set[str]] = set()

    def __init__(self, model: PolicyModel, process_group: ProcessGroup) -> None:
        super().__init__(copy.deepcopy(model), process_group)

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        own = dict(self.model.lm.named_parameters())
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)
        super().sync_weights((), version)

    def draw(self, *args: Any) -> Any:
        DisaggregatedEngine.threads.add(threading.current_thread().name)
        return super().draw(*args)
