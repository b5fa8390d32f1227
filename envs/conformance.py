"""Checks that every environment must pass, users' own included: ``ecrl envs check ID``."""

from __future__ import annotations

import pickle
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from ecrl.envs.async_steps import is_async, is_concurrent, resolved, step
from ecrl.envs.base import ReasoningEnv, Split, item_seed
from ecrl.errors import EcrlError

Env = gym.Env[str, str]
Make = Callable[[Split], Env]

PROBLEMS = 20
_MAX_TURNS = 64
_TOGETHER = 16  # environments whose steps are taken at once
_HOSTILE_SECONDS = 10.0
NOISE = ("", "?", "I do not know.", "~" * 50, "The answer is out of reach.")
#: Texts that a policy might write. None of them may raise, hang or earn a reward.
HOSTILE = (
    "\x00" * 1000,
    "(" * 100_000,
    "{" * 100_000 + "}" * 100_000,
    "\\boxed{" * 50_000,
    "\\boxed{" + "9" * 1_000_000 + "}",
    "\\boxed{9^{9^{9^{9^{9}}}}}",
    "9**9**9**9**9",
    "\\boxed{" + "1000000000!" + "}",
    "\\boxed{__import__('os').system('false')}",
    "```python\nimport os\nos._exit(0)\n```",
    "```python\nwhile True: pass\n```",
    "=" * 200_000,
    " " * 1_000_000 + "x",
    "-" * 200_000 + "x",
    "٣+٥*٧",
    "\ud800\U0001f600",
    "nan",
    "inf",
)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: name of the check.
        verdict: ``pass``, ``fail``, or ``skip`` if the check does not apply to the environment.
        detail: what was found, in one line.
    """

    name: str
    verdict: Literal["pass", "fail", "skip"]
    detail: str = ""


class SkippedError(Exception):
    """A check does not apply to the environment; the message says why."""


def check(make: Make) -> list[Finding]:
    """Run all checks, each on new environments.

    Args:
        make: makes an environment for ``"train"`` or ``"val"``.
    """
    return [_run(name, one, make) for name, one in CHECKS.items()]


def _run(name: str, one: Callable[[Make], str], make: Make) -> Finding:
    try:
        return Finding(name, "pass", one(make))
    except SkippedError as why:
        return Finding(name, "skip", str(why))
    except Exception as error:  # whatever a user's environment raises is a finding
        text = " ".join(str(error).split()) or "no message"
        kind = "" if isinstance(error, EcrlError) else f"{type(error).__name__}: "
        return Finding(name, "fail", kind + text)


def play(env: Env, response: str) -> tuple[float, dict[str, Any]]:
    """Give the same response every turn until the episode ends; return the reward and the last info."""
    total = 0.0
    for _ in range(_MAX_TURNS):
        _, reward, terminated, truncated, info = step(env, response)
        total += float(reward)
        if terminated or truncated:
            return total, info
    raise AssertionError(f"the episode did not end in {_MAX_TURNS} turns")


def reference(env: Env, number: int, correct: bool = True) -> str:
    """Return a worked solution of the current problem.

    Args:
        env: the environment.
        number: seed of the solution.
        correct: False asks for a wrong solution.

    Raises:
        SkippedError: the environment writes no solutions.
    """
    base = env.unwrapped
    if not isinstance(base, ReasoningEnv):
        raise SkippedError("not a ReasoningEnv, so it has no worked solutions")
    try:
        return base.solution(base.problem, np.random.default_rng(number), correct)
    except NotImplementedError as error:
        raise SkippedError(str(error)) from None


def _gymnasium(make: Make) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in get_args(Split):
            check_env(_plain(make(split)))
    return "check_env without a warning"


def _plain(env: Env) -> Env:
    """Return an environment without wrappers, whose `step` returns what Gymnasium's checks unpack."""
    base = env.unwrapped
    if is_async(env):
        later: Any = base.step
        base.step = lambda action: resolved(later(action))  # type: ignore[method-assign]
    return base


def _determinism(make: Make) -> str:
    one, other = make("train"), make("train")
    other.reset(seed=12345)
    seeds = [item_seed(0, i) for i in range(PROBLEMS)]
    prompts = [one.reset(seed=s)[0] for s in seeds]
    assert prompts == [other.reset(seed=s)[0] for s in seeds], "one seed gave two different problems"
    assert len(set(prompts)) > 1, f"{PROBLEMS} seeds gave one and the same problem"
    return f"{len(set(prompts))} different problems from {PROBLEMS} seeds, the same in two instances"


def _splits(make: Make) -> str:
    keys = {}
    for split in get_args(Split):
        env = make(split)
        keys[split] = {_identity(env, env.reset(seed=item_seed(1, i))) for i in range(10 * PROBLEMS)}
    both = keys["train"] & keys["val"]
    assert not both, f"{len(both)} problems are in train and in val, e.g. {sorted(both)[0]!r:.80}"
    return f"{len(keys['train'])} train and {len(keys['val'])} val problems, none in both"


def _identity(env: Env, answer: tuple[str, dict[str, Any]]) -> str:
    base = env.unwrapped
    return base.problem.key if isinstance(base, ReasoningEnv) else answer[0]


def _pickling(make: Make) -> str:
    env = make("train")
    env.reset(seed=5)
    twin = pickle.loads(pickle.dumps(env))
    assert step(twin, "?")[:4] == step(env, "?")[:4], "a pickled copy scores differently"
    assert twin.reset()[0] == env.reset()[0], "a pickled copy draws another problem"
    return "a pickled copy continues where the environment was"


def _right(make: Make) -> str:
    env = make("train")
    for number in range(PROBLEMS):
        prompt, _ = env.reset(seed=item_seed(2, number))
        answer = reference(env, number)
        reward, _ = play(env, answer)
        assert reward == 1, f"{answer!r:.80} earns {reward:g} instead of 1 for {prompt!r:.80}"
    return f"{PROBLEMS} worked solutions earn 1"


def _noise(make: Make) -> str:
    env = make("train")
    for number, text in enumerate(NOISE * 4):
        prompt, _ = env.reset(seed=item_seed(3, number))
        reward, _ = play(env, text)
        assert reward <= 0, f"{text!r:.80} earns {reward:g} for {prompt!r:.80}"
    return f"{len(NOISE) * 4} texts without an answer earn nothing"


def _hostile(make: Make) -> str:
    env, slowest = make("train"), 0.0
    for text in HOSTILE:
        env.reset(seed=4)
        begin = time.perf_counter()
        reward, _ = play(env, text)
        slowest = max(slowest, time.perf_counter() - begin)
        assert reward <= 0, f"{text!r:.60} earns {reward:g}"
        assert slowest < _HOSTILE_SECONDS, f"{text!r:.60} took {slowest:.1f} s"
    return f"{len(HOSTILE)} texts, the slowest took {slowest:.2g} s"


def _side_by_side(make: Make) -> str:
    env = make("train")
    if not is_concurrent(env) and not is_async(env):
        raise SkippedError("concurrent = False: its steps are taken one by one")
    several = [make("train") for _ in range(_TOGETHER)]

    def pose(number: int) -> str:
        several[number].reset(seed=item_seed(6, number))
        return _some_text(several[number], number)

    alone = [step(several[number], pose(number))[1] for number in range(_TOGETHER)]
    texts = [pose(number) for number in range(_TOGETHER)]
    with ThreadPoolExecutor(_TOGETHER) as threads:
        together = [result[1] for result in threads.map(step, several, texts)]
    assert together == alone, (
        "steps in threads earn other rewards than one by one; let it share nothing, or say concurrent = False"
    )
    return f"{_TOGETHER} steps at once earn what they do one by one"


def _some_text(env: Env, number: int) -> str:
    try:
        return reference(env, number, correct=number % 2 == 0)
    except SkippedError:
        return NOISE[2]


def _speed(make: Make) -> str:
    env, seconds = make("train"), []
    for number in range(PROBLEMS):
        env.reset(seed=item_seed(5, number))
        text = _some_text(env, 2 * number)
        begin = time.perf_counter()
        step(env, text)
        seconds.append(time.perf_counter() - begin)
    return f"a step takes {statistics.median(seconds) * 1e3:.3g} ms in the median of {PROBLEMS}"


CHECKS: dict[str, Callable[[Make], str]] = {
    "gymnasium": _gymnasium,
    "determinism": _determinism,
    "splits": _splits,
    "pickling": _pickling,
    "right answers": _right,
    "noise": _noise,
    "hostile text": _hostile,
    "side by side": _side_by_side,
    "speed": _speed,
}
