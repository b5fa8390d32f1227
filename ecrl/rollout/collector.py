"""Collects rollouts: plays the episodes of environments with completions from the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.watchdog import watchdog
from ecrl.engines.base import Engine, Sampling
from ecrl.envs.async_steps import time_limit
from ecrl.envs.verifiers.pool import shared_stats
from ecrl.errors import EcrlError, UsageError
from ecrl.hashing import hash_u64
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.busy_clock import BusyClock
from ecrl.rollout.chat import Chat
from ecrl.rollout.env_errors import EnvErrors
from ecrl.rollout.env_pools import EnvPools, split_of
from ecrl.rollout.episode import Episode, count_votes, in_threads
from ecrl.rollout.opening import Opening, Reader
from ecrl.rollout.player import Player
from ecrl.rollout.problem_order import STREAMS
from ecrl.rollout.prompt_limit import PromptLimit
from ecrl.rollout.trajectory import Trajectory
from ecrl.rollout.verification import Verification

#: An episode is truncated after this many turns, so that an endless one does not hang the run.
MAX_TURNS = 64
#: Problems of an environment without end that are tried in search of one whose prompt fits.
_MOST_TRIED = 1000
_STREAMS = {**STREAMS, "greedy": 2}


@dataclass(frozen=True)
class Chosen:
    """The problems that a rollout poses.

    Attributes:
        problems: their numbers.
        stop: the number that the next rollout begins with.
        overlong: how many of the numbers up to there have prompts that are too long.
    """

    problems: list[int]
    stop: int
    overlong: int


class Collector:
    """Collects groups of trajectories.

    Args:
        make_env: makes an environment of a pool: ``train``, or the name of a validation set.
        engine: generates the completions.
        chat: tokenizes prompts and messages.
        seed: seed of problems and completions.
        process_group: the processes that divide the problems.
        timeout: seconds after which a call of the engine or of an environment ends the process; twice as
            long for an engine in lockstep.
        prompt_limit: returns the longest prompt of a pool for a way of sampling.
        errors: what happens when an environment's code raises.
        engine_clock: runs while the engine has something to do; None makes one.

    Attributes:
        options: options of every ``reset`` in a pool; they may change only between iterations.
        engine_clock: runs while the engine has something to do.
    """

    def __init__(
        self,
        make_env: Callable[[str], gym.Env[str, str]],
        engine: Engine,
        chat: Chat,
        seed: int,
        process_group: ProcessGroup | None = None,
        timeout: float = 1800.0,
        prompt_limit: Callable[[str, Sampling], PromptLimit] = lambda pool, sampling: PromptLimit(),
        errors: EnvErrors | None = None,
        engine_clock: BusyClock | None = None,
    ) -> None:
        self._pools = EnvPools(make_env, seed)
        self.options = self._pools.options
        self.engine = engine
        self._chat = chat
        self._errors = errors or EnvErrors()
        self._reader = Reader(chat, self._errors)
        self._seed = seed
        self._process_group = process_group or ProcessGroup()
        self._timeout = timeout
        self.prompt_limit = prompt_limit
        self._stopping = Event()
        self.engine_clock = engine_clock or BusyClock("engine")

    def stop(self) -> None:
        """End what is being played in other threads; nothing is collected afterwards."""
        self._stopping.set()

    def share_options(self, other: Collector) -> None:
        """Take the options of another collector, now and when they change."""
        self.options = self._pools.options = other.options

    def choose(self, pool: str, first: int, count: int, sampling: Sampling) -> Chosen:
        """Choose the next problems whose prompts the policy reads; each process tries its share.

        Args:
            pool: the pool of environments that the problems are from.
            first: number of the first problem that was not posed yet.
            count: how many to choose.
            sampling: how the answers will be sampled.

        Raises:
            UsageError: the prompts of all problems are too long.
        """
        limit, found, overlong, stop = self.prompt_limit(pool, sampling), list[int](), 0, first
        if limit.tokens is None:
            return Chosen(list(range(first, first + count)), first + count, 0)
        while len(found) < count:
            tried = range(stop, stop + count - len(found))
            mine = [self._judge(pool, tried[i], limit) for i in self._process_group.share(len(tried))]
            verdicts = self._process_group.gather(mine)
            found += [number for number, (reads, _) in zip(tried, verdicts, strict=True) if reads]
            overlong += sum(too_long for _, too_long in verdicts)
            stop = tried.stop
            if not found and stop - first >= (self.problems(pool) or _MOST_TRIED):
                raise UsageError(
                    f"The prompts of {stop - first} problems are all too long: {limit.reason} allows "
                    f"{limit.tokens} tokens. Raise the limit, or set rollout.overlong_prompts=truncate."
                )
        return Chosen(found, stop, overlong)

    def collect(
        self,
        pool: str,
        problems: Sequence[int],
        copies: int,
        sampling: Sampling,
        iteration: int,
        recorder: MetricsRecorder,
    ) -> list[Trajectory]:
        """Play ``copies`` episodes of each problem; each process plays its share of the problems.

        Args:
            pool: the pool of environments that the problems are from.
            problems: numbers of the problems; a number always means the same problem.
            copies: G, number of episodes for each problem.
            sampling: how to sample.
            iteration: part of the key of every random stream.
            recorder: records the time of generation and of verification.

        Returns:
            ``len(problems)·copies`` trajectories, those of a problem side by side; every process gets all.
            Those of a problem that the policy does not read have no turns.

        Raises:
            EcrlError: an environment's code failed.
            UsageError: an environment gave different problems for one seed, or a prompt is empty or too long.
        """
        mine = [problems[i] for i in self._process_group.share(len(problems))]
        stream = "greedy" if sampling.temperature == 0 else split_of(pool)
        limit = self.prompt_limit(pool, sampling)
        with recorder.timer("verify"):
            episodes = self._reset(pool, mine, copies, (stream, iteration), limit)
        self._play([e for e in episodes if e.opening.ids is not None], sampling, limit, recorder)
        if split_of(pool) == "val" and copies > 1:
            with recorder.timer("verify"):
                self._count_votes(episodes, copies)
        return self._process_group.gather([e.trajectory() for e in episodes])

    def problems(self, pool: str) -> int | None:
        """Number of problems of a pool; None if its environment has no end."""
        return self._pools.size(pool)

    def _judge(self, pool: str, number: int, limit: PromptLimit) -> tuple[bool, bool]:
        """Whether the policy reads a problem, and whether its prompt is too long."""
        arguments = self._pools.reset_arguments(pool, number)
        opening = self._reader.open([self._pools.get(pool)], arguments, limit, f"{pool}-problem{number}")
        # One whose environment fails is posed, so that it is counted.
        return opening is None or opening.ids is not None, opening is not None and opening.overlong

    def _play(
        self,
        episodes: Sequence[Episode],
        sampling: Sampling,
        prompt_limit: PromptLimit,
        recorder: MetricsRecorder,
    ) -> None:
        def step(episode: Episode) -> None:
            with self._judged(episode):
                episode.step()
            self._go_on(episode, prompt_limit)

        async def step_async(episode: Episode) -> None:
            with self._judged(episode):
                await episode.step_async(time_limit(episode.env, self._timeout))
            self._go_on(episode, prompt_limit)

        waited = shared_stats()
        Player(
            self.engine,
            self._chat,
            Verification(step, step_async, self._timeout, self._stopping.is_set),
            self._process_group,
            self._timeout,
            self.engine_clock,
            recorder,
            self._stopping.is_set,
        ).play(episodes, sampling)
        stats = shared_stats()
        if calls := stats.calls - waited.calls:
            recorder.add_seconds("verifier_queue", (stats.queue_seconds - waited.queue_seconds) / calls)

    def _reset(
        self,
        pool: str,
        problems: Sequence[int],
        copies: int,
        stream: tuple[str, int],
        limit: PromptLimit,
    ) -> list[Episode]:
        self._pools.close_other_sets(pool)
        keys: NDArray[np.uint64] = hash_u64(
            self._seed,
            _STREAMS[stream[0]],
            stream[1],
            np.repeat(problems, copies),
            np.tile(np.arange(copies), len(problems)),
        )
        drawn = f"{pool}-greedy" if stream[0] == "greedy" else pool
        episodes: list[Episode] = []
        for group, number in enumerate(problems):
            envs = [self._pools.get(pool, group * copies + copy) for copy in range(copies)]
            arguments = self._pools.reset_arguments(pool, number)
            place = f"{drawn}-iteration{stream[1]}-problem{number}"
            opening = self._reader.open(envs, arguments, limit, place)
            for copy, env in enumerate(envs):
                key = int(keys[group * copies + copy])
                episodes.append(Episode(env, number, copy, key, opening or Opening(), f"{place}-copy{copy}"))
                if opening is None:
                    episodes[-1].fail()
        return episodes

    def _count_votes(self, episodes: Sequence[Episode], copies: int) -> None:
        """Sort the answers to each problem into classes, problems that wait for verifiers at once."""
        groups = [episodes[i : i + copies] for i in range(0, len(episodes), copies)]
        with watchdog(self._timeout, f"The environment's comparison of answers to {len(groups)} problems"):
            in_threads(self._vote, groups, episodes[:1])

    def _vote(self, group: Sequence[Episode]) -> None:
        try:
            count_votes(group)
        except EcrlError as error:
            self._errors.judge(error, f"same_answer-{group[0].place}", prompt=group[0].opening.text)

    @contextmanager
    def _judged(self, episode: Episode) -> Iterator[None]:
        """End the episode if its environment's code fails within the block, or the run if it is to end."""
        try:
            yield
        except EcrlError as error:
            turns = "\n--- next turn ---\n".join(episode.texts)
            self._errors.judge(error, f"step-{episode.place}", prompt=episode.opening.text, response=turns)
            episode.fail()

    def _go_on(self, episode: Episode, prompt_limit: PromptLimit) -> None:
        """Let an episode that has not ended read the observation, if there is room for another turn."""
        if len(episode.turns) == MAX_TURNS and not episode.terminated:
            episode.truncated = True
        if not (episode.terminated or episode.truncated):
            last = episode.turns[-1].completion
            ended_by = last.token_ids[-1] if last.finish_reason == "stop" else None
            episode.context_ids = self._chat.reply(ended_by, episode.observation)
            episode.truncated = prompt_limit.exceeded(episode.input_ids)
