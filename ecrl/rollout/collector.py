"""Collects rollouts: plays the episodes of environments with completions from the engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.watchdog import watchdog
from ecrl.engines.base import Engine, Sampling
from ecrl.envs.base import ReasoningEnv, Split
from ecrl.envs.safe_calls import as_text, env_id, user_code
from ecrl.envs.verifiers.pool import shared_stats
from ecrl.hashing import hash_u64
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.chat import Chat
from ecrl.rollout.group_reset import reset_group
from ecrl.rollout.problem_order import STREAMS, reset_arguments, size
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.rollout.voting import vote_classes

T = TypeVar("T")
#: An episode is truncated after this many turns, so that an endless one does not hang the run.
MAX_TURNS = 64
_THREADS = 64  # threads that wait for verifiers; they compute nothing themselves
#: The pool of the training environments.
TRAIN = "train"
_STREAMS = {**STREAMS, "greedy": 2}


def split_of(pool: str) -> Split:
    """Return the split that a pool of environments draws from: all but training's are for validation."""
    return "train" if pool == TRAIN else "val"


@dataclass
class _Episode:
    """The state of one running episode."""

    env: gym.Env[str, str]
    problem_id: int
    sample_index: int
    key: int
    text: str  # the prompt as the policy reads it
    prompt_ids: list[int]
    gold: str | None
    context_ids: list[int] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    vote: int | None = None

    @property
    def input_ids(self) -> list[int]:
        """All token ids that the policy reads before its next turn."""
        ids = list(self.prompt_ids)
        for turn in self.turns:
            ids += turn.context_ids + turn.completion.token_ids
        return ids + self.context_ids


def _finite(value: Any, what: str = "reward") -> float:
    """Return a number that an environment reports, as a float.

    Raises:
        ValueError: it is not a number, or not finite.
    """
    if not isinstance(value, (int, float, np.number, np.bool_)) or not math.isfinite(value):
        raise ValueError(f"the {what} is {value!r}, not a finite number")
    return float(value)


def _in_threads(act: Callable[[T], None], items: Sequence[T], example: Sequence[_Episode]) -> None:
    """Act on every item: in threads where the environments wait for other processes, else one by one."""
    if example and getattr(example[0].env.unwrapped, "concurrent", False):
        with ThreadPoolExecutor(min(len(items), _THREADS)) as threads:
            list(threads.map(act, items))
    else:
        for item in items:
            act(item)


def _gold(env: gym.Env[str, str]) -> str | None:
    """Ask an environment that was just reset for the right answer."""
    inner = env.unwrapped
    if not isinstance(inner, ReasoningEnv):
        return None
    with user_code(f"{env_id(env)}.gold"):
        return inner.gold(inner.problem)


def _vote(group: Sequence[_Episode]) -> None:
    """Give the episodes of one problem their classes of answers."""
    env = group[0].env.unwrapped

    def same(one: str, other: str) -> bool:
        if not isinstance(env, ReasoningEnv):
            return one == other
        with user_code(f"{env_id(env)}.same_answer"):
            return env.same_answer(env.problem, one, other)

    answers = [e.info.get("answer") for e in group]
    for episode, vote in zip(group, vote_classes(answers, [e.reward >= 1 for e in group], same), strict=True):
        episode.vote = vote


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
    """

    def __init__(
        self,
        make_env: Callable[[str], gym.Env[str, str]],
        engine: Engine,
        chat: Chat,
        seed: int,
        process_group: ProcessGroup | None = None,
        timeout: float = 1800.0,
    ) -> None:
        self._make_env = make_env
        self._envs: dict[str, list[gym.Env[str, str]]] = defaultdict(list)
        self.engine = engine
        self._chat = chat
        self._seed = seed
        self._process_group = process_group or ProcessGroup()
        self._timeout = timeout
        #: Options of every `reset` in a pool; they may change only between iterations.
        self.options: dict[str, dict[str, Any]] = defaultdict(dict)

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

        Raises:
            EcrlError: an environment gave different problems for one seed, or its code failed.
        """
        mine = [problems[i] for i in self._process_group.share(len(problems))]
        stream = _STREAMS["greedy" if sampling.temperature == 0 else split_of(pool)]
        with recorder.timer("verify"):
            episodes = self._reset(pool, mine, copies, (stream, iteration))
        self._play(episodes, sampling, recorder)
        if split_of(pool) == "val" and copies > 1:
            with recorder.timer("verify"):
                self._count_votes(episodes, copies)
        return self._process_group.gather([self._trajectory(e) for e in episodes])

    def problems(self, pool: str) -> int | None:
        """Number of problems of a pool; None if its environment has no end."""
        envs = self._envs[pool]
        if not envs:
            envs.append(self._make_env(pool))
        return size(envs[0])

    def _play(self, episodes: Sequence[_Episode], sampling: Sampling, recorder: MetricsRecorder) -> None:
        """Alternate generation and environment steps until every episode has ended."""
        # In lockstep the engine's collectives have the same time-out. It must expire before this one, so
        # that a healthy process reports the peer that hangs instead of its own engine.
        limit = 2 * self._timeout if self.engine.lockstep else self._timeout
        active = episodes
        while self._process_group.any(bool(active)) if self.engine.lockstep else active:
            with recorder.timer("generate"):
                keys = hash_u64(np.array([e.key for e in active], np.uint64), [len(e.turns) for e in active])
                with watchdog(limit, f"The engine's generation of {len(active)} completions"):
                    completions = self.engine.generate([e.input_ids for e in active], sampling, keys.tolist())
                texts = [self._chat.response(c.token_ids) for c in completions]
            for episode, completion, text in zip(active, completions, texts, strict=True):
                episode.turns.append(Turn(episode.context_ids, completion))
                episode.texts.append(text)
            self._step_all(active, recorder)
            active = [e for e in active if not (e.terminated or e.truncated)]

    def _reset(
        self, pool: str, problems: Sequence[int], copies: int, stream: tuple[int, int]
    ) -> list[_Episode]:
        self._close_other_sets(pool)
        envs = self._envs[pool]
        while len(envs) < len(problems) * copies:
            envs.append(self._make_env(pool))
        keys: NDArray[np.uint64] = hash_u64(
            self._seed, *stream, np.repeat(problems, copies), np.tile(np.arange(copies), len(problems))
        )
        episodes: list[_Episode] = []
        for start, problem in zip(range(0, len(keys), copies), problems, strict=True):
            group = envs[start : start + copies]
            arguments = reset_arguments(group[0], split_of(pool), self._seed, problem, self.options[pool])
            prompt, info = reset_group(group, arguments)
            text, gold = self._read(group[0], prompt, info), _gold(group[0])
            ids = self._chat.opening(text)
            for copy, env in enumerate(group):
                key = int(keys[start + copy])
                episodes.append(_Episode(env, problem, copy, key, text, ids, gold))
        return episodes

    def _close_other_sets(self, pool: str) -> None:
        """Close the environments of other validation sets, so that memory does not grow with the sets."""
        for other in self._envs.keys() - {TRAIN, pool} if pool != TRAIN else ():
            for env in self._envs.pop(other):
                env.close()

    def _read(self, env: gym.Env[str, str], prompt: str, info: dict[str, Any]) -> str:
        """Return the text that the policy reads of what an environment's ``reset`` returned."""
        with user_code(f"{env_id(env)}.reset"):
            messages = info.get("messages", ())
            for message in messages:
                as_text(message["role"], "role of a message")
                as_text(message["content"], "content of a message")
        return self._chat.text(prompt, messages)

    def _count_votes(self, episodes: Sequence[_Episode], copies: int) -> None:
        """Sort the answers to each problem into classes, problems that wait for verifiers at once."""
        groups = [episodes[i : i + copies] for i in range(0, len(episodes), copies)]
        with watchdog(self._timeout, f"The environment's comparison of answers to {len(groups)} problems"):
            _in_threads(_vote, groups, episodes[:1])

    def _step_all(self, episodes: Sequence[_Episode], recorder: MetricsRecorder) -> None:
        """Step every environment with its response; environments that wait for verifiers run in threads."""
        waited = shared_stats()
        scoring = watchdog(self._timeout, f"The environment's scoring of {len(episodes)} completions")
        with recorder.timer("verify"), scoring:
            _in_threads(self._step, episodes, episodes[:1])
        stats = shared_stats()
        if calls := stats.calls - waited.calls:
            recorder.add_seconds("verifier_queue", (stats.queue_seconds - waited.queue_seconds) / calls)

    def _step(self, episode: _Episode) -> None:
        with user_code(f"{env_id(episode.env)}.step"):
            action = episode.texts[-1]
            observation, reward, episode.terminated, episode.truncated, episode.info = episode.env.step(
                action
            )
            gain = _finite(reward)
            episode.reward += gain
            episode.turns[-1] = replace(episode.turns[-1], reward=gain)
            as_text(observation, "observation")
            for name, value in episode.info.get("metrics", {}).items():
                _finite(value, f"metric {name!r}")
        if len(episode.turns) == MAX_TURNS and not episode.terminated:
            episode.truncated = True
        if not (episode.terminated or episode.truncated):
            last = episode.turns[-1].completion
            ended_by = last.token_ids[-1] if last.finish_reason == "stop" else None
            episode.context_ids = self._chat.reply(ended_by, observation)

    @staticmethod
    def _trajectory(episode: _Episode) -> Trajectory:
        cut = episode.turns[-1].completion.finish_reason == "length"
        return Trajectory(
            prompt_ids=episode.prompt_ids,
            turns=episode.turns,
            problem_id=episode.problem_id,
            sample_index=episode.sample_index,
            reward=episode.reward,
            terminated=episode.terminated and not cut,
            truncated=episode.truncated or cut,
            metrics=episode.info.get("metrics", {}),
            answer=episode.info.get("answer"),
            vote=episode.vote,
            gold=episode.gold,
            prompt=episode.text,
            response="".join(episode.texts),
        )
