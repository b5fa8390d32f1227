"""Episodes are played as completions arrive: the same ones in any order, verified meanwhile, none lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import pytest

from ecrl.config.resume import resumed_config
from ecrl.engines.hf import HFEngine
from ecrl.envs.base import Problem, Score
from ecrl.errors import EcrlError
from ecrl.metrics import MetricsRecorder
from ecrl.training.run import train
from tests.support.collecting import collect, collector
from tests.support.engines import FailingEngine, ScatteredEngine
from tests.support.paths import ROOT
from tests.support.runs import assert_same_run, run, silent
from tests.support.tasks import EchoEnv
from tests.support.tiny import TINY

TASKS = f"{__name__}:test"


class WaitingEcho(EchoEnv):
    """Waits, so that several are verified at once, in threads."""

    at_once: ClassVar[int] = 0
    most_at_once: ClassVar[int] = 0
    _lock = threading.Lock()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        with self._lock:
            WaitingEcho.at_once += 1
            WaitingEcho.most_at_once = max(WaitingEcho.most_at_once, WaitingEcho.at_once)
        time.sleep(0.02)
        with self._lock:
            WaitingEcho.at_once -= 1
        return super().step(action)


class FaultyEcho(WaitingEcho):
    """Raises at its second turn."""

    def score(self, problem: Problem, response: str) -> Score:
        raise ZeroDivisionError("a fault of the user's own")


gym.register("test/WaitingEcho-v0", entry_point=WaitingEcho)
gym.register("test/FaultyEcho-v0", entry_point=FaultyEcho)


@pytest.mark.parametrize("env_id", ["Digits", "Echo", "WaitingEcho"])
def test_any_order_of_arrival_gives_the_same_trajectories(env_id: str, tiny_model: Path) -> None:
    want = collect(collector(tiny_model, HFEngine, f"{TASKS}/{env_id}-v0"))
    source = collector(tiny_model, ScatteredEngine, f"{TASKS}/{env_id}-v0")
    assert [collect(source) for _ in range(3)] == [want] * 3
    assert len({t.response for t in want}) > 8


def test_an_episode_takes_its_next_turn_while_others_wait_for_their_first(tiny_model: Path) -> None:
    source = collector(tiny_model, ScatteredEngine, f"{TASKS}/Echo-v0")
    collect(source)
    engine: Any = source.engine
    opened = [left for what, left in engine.notes if what == "submit"]
    assert opened[0] == 12 and len(opened) > 4 and max(opened[1:4]) > 8
    assert engine.notes[-1] == ("poll", 0)


def test_an_engine_that_draws_in_waves_gets_all_next_turns_at_once(tiny_model: Path) -> None:
    waves: list[int] = []

    class Counting(HFEngine):
        def draw(self, prompts: Any, *args: Any) -> Any:
            waves.append(len(prompts))
            return super().draw(prompts, *args)

    collect(collector(tiny_model, Counting, f"{TASKS}/WaitingEcho-v0"))
    assert waves == [12, 12]


def test_verification_goes_on_while_the_engine_draws(tiny_model: Path) -> None:
    source = collector(tiny_model, ScatteredEngine, f"{TASKS}/WaitingEcho-v0")
    WaitingEcho.most_at_once = 0
    recorder = MetricsRecorder()
    collect(source, recorder)
    assert WaitingEcho.most_at_once > 2  # one poll brings at most two
    assert recorder.seconds().keys() == {"generate", "verify"}
    assert source.engine_clock.seconds() > 0


def test_an_environment_that_raises_ends_the_run_and_the_engine_forgets(tiny_model: Path) -> None:
    source = collector(tiny_model, ScatteredEngine, f"{TASKS}/FaultyEcho-v0")
    with pytest.raises(EcrlError, match="ZeroDivisionError"):
        collect(source)
    engine: Any = source.engine
    assert engine.notes[-1] == ("cancel", 0)
    assert not [t for t in threading.enumerate() if t.name.startswith("verify")]


def test_an_engine_that_finishes_nothing_ends_in_time(tiny_model: Path) -> None:
    class Silent(ScatteredEngine):
        def submit(self, requests: Any) -> None:
            pass

        def poll(self) -> Any:
            time.sleep(0.01)
            return []

    source = collector(tiny_model, Silent, f"{TASKS}/Digits-v0", timeout=1.0)
    with pytest.raises(EcrlError, match=r"finished none of 12 completions within 1 s"):
        collect(source)


@pytest.mark.slow
def test_a_verifier_that_hangs_ends_the_process_in_a_line() -> None:
    program = (
        "import time\n"
        "from ecrl.rollout.episode import Episode\n"
        "from ecrl.rollout.opening import Opening\n"
        "from ecrl.rollout.verification import Verification\n"
        f"from {__name__} import WaitingEcho\n"
        "verification = Verification(lambda episode: time.sleep(60), None, 0.3)\n"
        "verification.start([Episode(WaitingEcho(), 0, 0, 0, Opening(), '')])\n"
        "verification.take(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 1
    assert "The environment's scoring of a completion did not return within 0.3 s" in done.stderr


# ------------------------------------------------------------------ whole runs


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", "iterations=3", "eval.every=2", "eval.problems=4", "eval.k=2"]


@pytest.fixture
def _failing() -> Iterator[None]:
    FailingEngine.answered = 0
    yield
    FailingEngine.after = None


def test_a_run_is_the_same_in_any_order_of_arrival(base: list[str], tmp_path: Path) -> None:
    again = [*base, f"env={__name__}:test/Echo-v0", "objective.filters.max_resample=1", "engine.batch_size=1"]
    again += ["rollout.prompts=4", "rollout.group_size=2", "iterations=2"]
    waves = run(again, tmp_path / "waves")
    scattered = run(again, tmp_path / "scattered", "engine._target_=tests.support.engines.ScatteredEngine")
    assert_same_run(waves, scattered)


@pytest.mark.usefixtures("_failing")
@pytest.mark.parametrize("staleness", [0, 2])
def test_an_engine_that_fails_among_its_answers_loses_nothing(
    staleness: int, base: list[str], tmp_path: Path
) -> None:
    same = [*base, f"rollout.staleness={staleness}", "engine._target_=tests.support.engines.FailingEngine"]
    same += ["checkpoint.every=1", "eval.every=0"]
    whole = run(same, tmp_path / "whole")
    FailingEngine.answered, FailingEngine.after = 0, 70 + 64 * (staleness > 0)  # of 96, or 160
    with pytest.raises(EcrlError, match=r"failed with .* open"):
        run(same, tmp_path / "parts")
    train(resumed_config([f"resume={tmp_path / 'parts'}"]), silent)
    assert_same_run(whole, tmp_path / "parts")


@pytest.mark.timeout(300)  # not trainer.timeout
def test_an_error_of_the_trainer_does_not_wait_for_what_is_being_drawn(
    base: list[str], tmp_path: Path
) -> None:
    ahead = ["rollout.staleness=1", "engine._target_=tests.support.engines.StuckEngine", "eval.every=0"]
    fault = "monitor.mine={_target_: tests.support.raising.RaisingMonitor, iteration: 1}"
    with pytest.raises(EcrlError, match="ZeroDivisionError"):
        run([*base, *ahead, fault], tmp_path / "run")
    assert not [t for t in threading.enumerate() if t.name.startswith("rollouts")]
