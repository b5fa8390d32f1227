"""Plays episodes: a completion is verified as it arrives, and its episode takes the next turn at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.watchdog import watchdog
from ecrl.engines.base import Engine, Request, Sampling
from ecrl.errors import EcrlError
from ecrl.hashing import hash_u64
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.busy_clock import BusyClock
from ecrl.rollout.chat import Chat
from ecrl.rollout.episode import Episode
from ecrl.rollout.shared_engine import AbandonedError
from ecrl.rollout.trajectory import Turn
from ecrl.rollout.verification import Verification


class Player:
    """Plays episodes to their ends.

    The tokens of a turn depend on the episode's own key and on what it read, never on the order in which
    completions arrive.

    Args:
        engine: generates the completions.
        chat: reads them.
        verification: gives episodes' last responses to their environments; it is closed at the end.
        process_group: the processes that play at the same time.
        timeout: seconds in which something must finish: a completion, a call of the engine.
        clock: runs while the engine has something to do.
        recorder: records the time of generation and of verification.
        stopping: whether the run has ended elsewhere, so that nobody needs the episodes any more.
    """

    def __init__(
        self,
        engine: Engine,
        chat: Chat,
        verification: Verification,
        process_group: ProcessGroup,
        timeout: float,
        clock: BusyClock,
        recorder: MetricsRecorder,
        stopping: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._chat = chat
        self._verification = verification
        self._process_group = process_group
        self._timeout = timeout
        self._clock = clock
        self._recorder = recorder
        self._stopping = stopping
        self._numbers = count()
        self._open: dict[int, Episode] = {}
        self._heard = time.monotonic()  # when a completion last arrived, or was asked for

    def play(self, episodes: Sequence[Episode], sampling: Sampling) -> None:
        """Play episodes until every one has ended.

        Raises:
            AbandonedError: the run has ended elsewhere.
            EcrlError: the engine or an environment's code failed; the engine then has forgotten all requests.
        """
        ready, verification = list(episodes), self._verification
        try:
            while self._any(bool(ready or self._open or verification.open)):
                with self._recorder.timer("generate"):
                    self._submit(ready, sampling)
                    arrived = self._poll()
                with self._recorder.timer("verify"):
                    verification.start(arrived)
                    # An engine that draws in waves draws faster if all take their next turn together.
                    all_of = verification.open if self._engine.waves else min(1, verification.open)
                    verified = verification.take(0 if self._open else all_of)
                ready = [e for e in verified if not (e.terminated or e.truncated)]
                if self._stopping():
                    raise AbandonedError("The run has ended.")
        except BaseException:
            self._engine.cancel()
            raise
        finally:
            if self._open:
                self._clock.stop()
            verification.close()

    def _any(self, here: bool) -> bool:
        """Whether to go on: in lockstep, whether any process has to, because all poll equally often."""
        return self._process_group.any(here) if self._engine.lockstep else here

    def _submit(self, episodes: Sequence[Episode], sampling: Sampling) -> None:
        """Ask for the next turns of episodes."""
        if not episodes:
            return
        keys = hash_u64(np.array([e.key for e in episodes], np.uint64), [len(e.turns) for e in episodes])
        asked = {next(self._numbers): episode for episode in episodes}
        requests = [
            Request(number, episode.input_ids, key, sampling)
            for (number, episode), key in zip(asked.items(), keys.tolist(), strict=True)
        ]
        with watchdog(self._timeout, f"The engine's taking in of {len(requests)} requests"):
            self._engine.submit(requests)
        if not self._open:
            self._clock.start()
        self._open |= asked
        self._heard = time.monotonic()

    def _poll(self) -> list[Episode]:
        """Let the engine go on; return the episodes whose completions arrived."""
        if not (self._open or self._engine.lockstep):
            return []
        # In lockstep the engine's collectives have the same time-out. It must expire before this one, so
        # that a healthy process reports the peer that hangs instead of its own engine.
        limit = 2 * self._timeout if self._engine.lockstep else self._timeout
        with watchdog(limit, f"The engine's generation of {len(self._open)} completions"):
            finished = self._engine.poll()
        arrived = []
        for number, completion in finished:
            episode = self._open.pop(number)
            episode.turns.append(Turn(episode.context_ids, completion))
            episode.texts.append(self._chat.response(completion.token_ids))
            arrived.append(episode)
        if arrived and not self._open:
            self._clock.stop()
        self._check_liveness(bool(arrived))
        return arrived

    def _check_liveness(self, arrived: bool) -> None:
        now = time.monotonic()
        if arrived:
            self._heard = now
        elif self._open and now - self._heard > self._timeout:
            raise EcrlError(
                f"The engine finished none of {len(self._open)} completions within {self._timeout:g} s "
                "(trainer.timeout); continue from the last checkpoint with resume=RUN_DIR."
            )
