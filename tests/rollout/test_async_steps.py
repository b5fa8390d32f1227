"""Asynchronous steps: many at once, within bounds, the same results, and no trace of them at the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import pytest

from ecrl.config.resume import resumed_config
from ecrl.engines.hf import HFEngine
from ecrl.envs.async_steps import close_shared_loop, resolved, shared_loop, step
from ecrl.envs.conformance import check
from ecrl.envs.safe_calls import make as make_env
from ecrl.errors import EcrlError, UsageError
from ecrl.event_loop import EventLoopThread
from ecrl.training.run import train
from tests.support.async_tasks import AwaitingEcho, HangsLater, LaterSums
from tests.support.collecting import collect, collector
from tests.support.engines import ScatteredEngine
from tests.support.paths import ROOT
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tasks import DigitsEnv
from tests.support.tiny import TINY

TASKS = "tests.support.async_tasks"


class SleepingDigits(DigitsEnv):
    """A plain function that waits, and says nothing about threads."""

    at_once: ClassVar[int] = 0
    most_at_once: ClassVar[int] = 0
    _changed = threading.Condition()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        cls = SleepingDigits
        with cls._changed:
            cls.at_once += 1
            cls.most_at_once = max(cls.most_at_once, cls.at_once)
            cls._changed.notify_all()
            cls._changed.wait_for(lambda: cls.most_at_once >= 64 or not self.concurrent, timeout=20)
            cls.at_once -= 1
        return super().step(action)


class MainThreadDigits(SleepingDigits):
    """Can be stepped in the main thread only."""

    concurrent = False

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        assert threading.current_thread() is threading.main_thread()
        return super().step(action)


class Sharing(LaterSums):
    """Keeps the problem in its class, so that environments disturb each other."""

    shared: ClassVar[Any] = None

    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        Sharing.shared = result[1]["problem"]
        return result

    async def score(self, problem: Any, response: str) -> Any:
        return await super().score(Sharing.shared, response)


gym.register("test/SleepingDigits-v0", entry_point=SleepingDigits)
gym.register("test/MainThreadDigits-v0", entry_point=MainThreadDigits)
gym.register("test/Sharing-v0", entry_point=Sharing)


def left() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("async-steps", "verify", "watchdog"))]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    keep_all = "objective.filters.drop_zero_variance=false"
    words = [word for word in TINY if not word.startswith("env=")]
    return [*words, f"model.path={tiny_model}", "iterations=2", keep_all]


def test_any_order_of_arrival_gives_the_trajectories_of_plain_steps(tiny_model: Path) -> None:
    want = collect(collector(tiny_model, HFEngine, "tests.support.tasks:test/Echo-v0"))
    assert collect(collector(tiny_model, ScatteredEngine, f"{TASKS}:test/NarrowEcho-v0")) == want


@pytest.mark.parametrize(("env_id", "most"), [("AwaitingEcho", 64), ("NarrowEcho", 3)])
def test_as_many_at_once_as_the_environment_allows(
    env_id: str, most: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwaitingEcho, "wanted", most)
    AwaitingEcho.most_at_once = 0
    source = collector(tiny_model, HFEngine, f"{TASKS}:test/{env_id}-v0", batch=68)
    collect(source, problems=range(17), copies=4)
    assert AwaitingEcho.most_at_once == most


def test_plain_steps_that_wait_do_so_together(tiny_model: Path) -> None:
    SleepingDigits.most_at_once = 0
    source = collector(tiny_model, HFEngine, f"{__name__}:test/SleepingDigits-v0", batch=64)
    collect(source, problems=range(16), copies=4)
    assert SleepingDigits.most_at_once == 64
    SleepingDigits.most_at_once = 0
    source = collector(tiny_model, HFEngine, f"{__name__}:test/MainThreadDigits-v0")
    collect(source, problems=range(4), copies=1)
    assert SleepingDigits.most_at_once == 1


# ------------------------------------------------------------------ what goes wrong

FAULTS = [
    ("raise", "ZeroDivisionError: a fault of the user's own .*async_tasks.py"),
    ("hang", "did not return within 0.2 s"),
    ("cancel", "was cancelled by its own code"),
    ("break", "was cancelled by its own code"),
]


@pytest.mark.parametrize(("fault", "why"), FAULTS, ids=lambda x: x.partition(" ")[0])
def test_a_step_that_fails_ends_the_run_in_a_line(
    fault: str, why: str, base: list[str], tmp_path: Path
) -> None:
    words = [f"env={TASKS}:test/AwaitingDigits-v0", f"env.kwargs.fault={fault}", "env.kwargs.time_limit=0.2"]
    with pytest.raises(EcrlError, match=rf"AwaitingDigits-v0.step .*{why}.*env\.on_error=zero") as e:
        run([*base, *words], tmp_path / "run")
    assert "\n" not in str(e.value)
    assert left() == []


@pytest.mark.parametrize("fault", ["hang", "break"])
def test_or_scores_0(fault: str, base: list[str], tmp_path: Path) -> None:
    words = [f"env={TASKS}:test/AwaitingDigits-v0", f"env.kwargs.fault={fault}", "env.kwargs.time_limit=0.2"]
    rows = history(run([*base, *words, "env.on_error=zero"], tmp_path / "run"))
    assert all(0 < row["rollout/env_errors"] < 32 for row in rows)
    assert all(row["rollout/env_errors"] % 4 == 0 and row["rollout/completions"] == 32 for row in rows)
    assert left() == []


def test_ctrl_c_leaves_nothing(base: list[str], tmp_path: Path) -> None:
    words = [f"env={TASKS}:test/AwaitingDigits-v0", "env.kwargs.fault=signal"]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run([*base, *words], tmp_path / "run")
    assert left() == []


def test_an_error_of_the_trainer_does_not_wait_for_steps_of_rollouts_drawn_ahead(
    base: list[str], tmp_path: Path
) -> None:
    HangsLater.steps = 0
    ahead = ["rollout.staleness=1", "engine._target_=tests.support.engines.DisaggregatedEngine"]
    fault = "monitor.mine={_target_: tests.support.raising.RaisingMonitor}"
    with pytest.raises(EcrlError, match="ZeroDivisionError"):
        run([*base, *ahead, f"env={TASKS}:test/HangsLater-v0", fault], tmp_path / "run")
    assert HangsLater.steps > 32 and left() == []


@pytest.mark.slow
def test_a_step_that_blocks_the_event_loop_ends_the_process() -> None:
    program = (
        "import time\n"
        "from ecrl.rollout.episode import Episode\n"
        "from ecrl.rollout.opening import Opening\n"
        "from ecrl.rollout.verification import Verification\n"
        f"from {TASKS} import LaterSums\n"
        "async def block(episode): time.sleep(60)\n"
        "verification = Verification(None, block, 0.3)\n"
        "verification.start([Episode(LaterSums(), 0, 0, 0, Opening(), '')] * 5)\n"
        "verification.take(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 1
    assert "The environment's scoring of 5 completions did not return within 0.6 s" in done.stderr
    assert "in block" in done.stderr  # where it hung


# ------------------------------------------------------------------ whole runs


def test_a_run_is_that_of_plain_steps_and_resumes(base: list[str], tmp_path: Path) -> None:
    plain = run([*base, "env=tests.support.tasks:test/Digits-v0"], tmp_path / "plain")
    waits = [*base, f"env={TASKS}:test/AwaitingDigits-v0"]
    waiting = run(waits, tmp_path / "waiting")
    assert_same_run(plain, waiting)
    run(waits, tmp_path / "parts", "iterations=1")
    train(resumed_config([f"resume={tmp_path / 'parts'}", "iterations=2"]), silent)
    assert_same_run(waiting, tmp_path / "parts")
    assert left() == []


def test_within_a_mixture(base: list[str], tmp_path: Path) -> None:
    members = f"[{{id: '{TASKS}:test/AwaitingDigits-v0'}}, {{id: ecrl/Countdown-v0}}]"
    rows = history(run([*base, "env=mixture", f"env.kwargs.envs={members}"], tmp_path / "run"))
    assert all(0 < row["env/awaitingdigits/share"] < 1 for row in rows)
    assert left() == []


# ------------------------------------------------------------------ the parts


def test_it_passes_the_conformance_suite() -> None:
    findings = check(lambda split: make_env(f"{TASKS}:test/LaterSums-v0", split, {}))
    assert {f.verdict for f in findings} == {"pass"}, findings


def test_what_is_shared_is_found() -> None:
    findings = check(lambda split: make_env(f"{__name__}:test/Sharing-v0", split, {}))
    assert "side by side" in [f.name for f in findings if f.verdict == "fail"]


def test_a_time_limit_of_gymnasium_is_refused() -> None:
    with pytest.raises(UsageError, match="register it without max_episode_steps"):
        make_env(f"{TASKS}:test/Limited-v0", "train", {})


def test_one_event_loop_for_all_until_it_is_closed() -> None:
    env = make_env(f"{TASKS}:test/LaterSums-v0", "train", {})
    env.reset(seed=0)
    assert step(env, "?")[1:4] == (0.0, True, False)
    loop = shared_loop()

    async def within_the_loop() -> None:
        assert asyncio.get_running_loop() is loop.loop
        later = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="use await"):
            resolved(later)
        await later

    resolved(within_the_loop())
    assert resolved(7) == 7
    close_shared_loop()
    assert loop.loop.is_closed() and left() == []
    assert resolved(asyncio.sleep(0, "again")) == "again"
    close_shared_loop()


def test_what_runs_is_cancelled_and_released_at_the_end() -> None:
    thread, notes = EventLoopThread("async-steps"), list[str]()

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            notes.append("cancelled")

    async def release() -> None:
        notes.append("released")

    thread.at_close(release)
    work = thread.start(endless())
    thread.run(asyncio.sleep(0.01))
    thread.close()
    thread.close()
    assert notes == ["cancelled", "released"] and work.cancelled() and left() == []
