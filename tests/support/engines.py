"""Engines for tests."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Request
from ecrl.engines.hf import HFEngine
from ecrl.errors import EcrlError
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


class ScatteredEngine(HFEngine):
    """Answers a few requests a poll, in a random order, and now and then none.

    It notes what it did: ``("submit", n)``, ``("poll", n)``, ``("cancel", n)`` with the number of requests
    that stay open.
    """

    waves = False
    seed = 0

    def __init__(self, model: PolicyModel, process_group: ProcessGroup, *, batch_size: int = 1024) -> None:
        super().__init__(model, process_group, batch_size=batch_size)
        self._rng = random.Random(self.seed)
        self._late: list[tuple[int, Completion]] = []
        self.notes: list[tuple[str, int]] = []

    def submit(self, requests: Sequence[Request]) -> None:
        super().submit(requests)
        self._late += super().poll()
        self._note("submit")

    def poll(self) -> list[tuple[int, Completion]]:
        self._rng.shuffle(self._late)
        few = self._rng.randint(0, 2)
        done, self._late = self._late[:few], self._late[few:]
        self._note("poll")
        return done

    def cancel(self) -> None:
        self._late = []
        self._note("cancel")

    def _note(self, what: str) -> None:
        self.notes.append((what, len(self._late)))


class FailingEngine(ScatteredEngine):
    """Fails once, when it has answered ``after`` requests and others are open."""

    after: ClassVar[int | None] = None
    answered: ClassVar[int] = 0

    def poll(self) -> list[tuple[int, Completion]]:
        if FailingEngine.after is not None and FailingEngine.answered >= FailingEngine.after and self._late:
            FailingEngine.after = None
            raise EcrlError(f"the engine failed with {len(self._late)} requests open")
        done = super().poll()
        FailingEngine.answered += len(done)
        return done


class PausableEngine(DisaggregatedEngine):
    """Draws two tokens of every open completion a poll, by whatever weights it then has.

    Attributes:
        syncs: number of requests that were open at each weight sync.
    """

    waves = False
    pausable = True
    syncs: ClassVar[list[int]] = []

    def __init__(self, model: PolicyModel, process_group: ProcessGroup) -> None:
        super().__init__(model, process_group)
        self._parts: dict[int, tuple[Request, list[Completion]]] = {}
        self._paused = False

    def submit(self, requests: Sequence[Request]) -> None:
        self._parts |= {request.id: (request, []) for request in requests}

    def poll(self) -> list[tuple[int, Completion]]:
        assert not self._paused
        done = []
        for number, (request, parts) in list(self._parts.items()):
            drawn = sum(len(part.token_ids) for part in parts)
            left = request.sampling.max_new_tokens - drawn
            prompt = [*request.prompt, *(t for part in parts for t in part.token_ids)]
            sampling = replace(request.sampling, max_new_tokens=min(2, left))
            parts += self.draw([prompt], sampling, [request.key + drawn])
            if left <= 2 or parts[-1].finish_reason == "stop":
                del self._parts[number]
                done.append((number, joined(parts)))
        return done

    def cancel(self) -> None:
        self._parts = {}

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        assert self._paused or not self._parts
        PausableEngine.syncs.append(len(self._parts))
        super().sync_weights(weights, version)


def joined(parts: Sequence[Completion]) -> Completion:
    """One completion of its parts."""
    spans: dict[int, int] = {}
    for part in parts:
        spans[part.weights_version] = spans.get(part.weights_version, 0) + len(part.token_ids)
    return Completion(
        token_ids=[t for part in parts for t in part.token_ids],
        logprobs=[x for part in parts for x in part.logprobs],
        entropy=[x for part in parts for x in part.entropy or []],
        finish_reason=parts[-1].finish_reason,
        weights_version=parts[-1].weights_version,
        earlier=tuple(spans.items())[:-1],
    )


class StuckEngine(DisaggregatedEngine):
    """Finishes nothing of what the first weights did not draw."""

    waves = False

    def poll(self) -> list[tuple[int, Completion]]:
        if self.version:
            time.sleep(0.01)
            return []
        return super().poll()
