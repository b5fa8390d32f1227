"""The tasks of reasoning-gym: all of them, with the real package."""

from __future__ import annotations

import importlib.util
import json
import pickle
import random
import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ecrl.config.compose import build_config
from ecrl.envs import item_seed
from ecrl.envs.reasoning_gym.env import ReasoningGymEnv, extract
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.errors import EcrlError, UsageError
from tests.support.marks import slow_unless

pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS, create_dataset

from ecrl.envs.reasoning_gym.tasks import _BY_SYMPY, Task, dataset, draw, judge, runs_programs
from tests.support.paths import ROOT

SETTINGS = {"composite": {"datasets": [{"name": "gcd"}, {"name": "leg_counting", "weight": 2}]}}
#: Tasks whose scorers evaluate the answer, as Python or by sympy.
EVALUATED = ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion", *sorted(_BY_SYMPY)]
#: Tasks that `make test` draws: of each kind of answer, one without, one of several, one that runs programs.
QUICK = {"chain_sum", "word_sorting", "sudoku", "countdown", "graph_color", "composite", "codeio", "maze"}
#: Tasks that only say how to score an answer, and give none.
UNSOLVED = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def make(task: str, **kwargs: Any) -> ReasoningGymEnv:
    env = gym.make(f"reasoning_gym/{task}-v0", **{**SETTINGS.get(task, {}), **kwargs}).unwrapped
    assert isinstance(env, ReasoningGymEnv)
    return env


def test_every_task_is_registered() -> None:
    assert sorted(DATASETS) == sorted(TASKS)
    assert {f"reasoning_gym/{task}-v0" for task in TASKS} <= set(gym.registry)


def test_importing_the_environments_does_not_import_it() -> None:
    code = "import sys, ecrl.envs; assert not [m for m in sys.modules if m.split('.')[0] == 'reasoning_gym']"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_without_the_package_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ecrl\[reasoning-gym\]'"):
        ReasoningGymEnv(task="gcd")


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrl.envs.reasoning_gym.tasks.version", lambda name: "0.2.0")
    dataset.cache_clear()
    with pytest.raises(UsageError, match=r"reasoning-gym 0\.2\.0 is installed"):
        ReasoningGymEnv(task="gcd")


@pytest.mark.parametrize("task", slow_unless(lambda task: task in QUICK, TASKS))
def test_every_task_draws_by_its_seed_and_pays_for_its_answers(task: str) -> None:
    one, other = make(task), make(task, split="train")
    before, numpy_before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    other.reset(seed=7)
    prompts = set()
    for number in range(3):
        seed = item_seed(1, number)
        prompt, info = one.reset(seed=seed)
        random.seed(number)  # a generator that draws from the global state would notice
        assert other.reset(seed=seed)[0] == prompt
        random.setstate(before)
        prompts.add(prompt)
        entry = info["problem"].answer
        assert pickle.loads(pickle.dumps(entry))["question"] == entry["question"]
        if task in UNSOLVED:
            with pytest.raises(NotImplementedError):
                one.solution(one.problem, np.random.default_rng(0))
        else:
            score = judge(one.task, entry, extract(one.solution(one.problem, np.random.default_rng(0))))
            assert score == 1.0
        # Some scorers give a few hundredths to any text, one a tenth for each letter in its place.
        assert judge(one.task, entry, "I do not know.") <= 0.2
    assert len(prompts) >= 2
    assert random.getstate() == before
    assert np.random.get_state()[1].tolist() == numpy_before  # type: ignore[index]


@pytest.mark.parametrize("task", ["chain_sum", "sudoku", "countdown", "word_ladder", "composite"])
def test_whole_episodes_through_the_pool(task: str) -> None:
    env, degrees = make(task), make(task, exact=False)
    check_env(env)
    for seed in range(3):
        env.reset(seed=seed)
        degrees.reset(seed=seed)
        right = env.solution(env.problem, np.random.default_rng(0))
        _, reward, terminated, truncated, info = env.step(f"Let me think. <answer>no</answer> Or: {right}")
        assert (reward, terminated, truncated) == (1.0, True, False)
        assert info["metrics"] == {"exact": 1.0, "failed": 0.0}
        assert env.step("12")[1] in (0.0, 1.0)
        assert degrees.step("")[1] == degrees.step("<answer> </answer>")[1] == 0.0


@pytest.mark.parametrize("answer", ["nan", "NaN+nanj", "inf", "-Infinity"])
def test_what_is_no_number_earns_nothing(answer: str) -> None:
    env = make("complex_arithmetic", exact=False)
    env.reset(seed=0)
    assert env.step(answer)[1] == 0.0


def test_the_reward_is_the_scorers() -> None:
    env = make("word_sorting", exact=False)
    env.reset(seed=0)
    scorer = create_dataset("word_sorting", seed=0, size=1)
    words = env.problem.answer["metadata"]["sorted_words"]
    partly = ", ".join([words[0], *reversed(words[1:])])
    assert 0 < env.step(partly)[1] == scorer.score_answer(partly, env.problem.answer) < 1
    assert make("word_sorting").score(env.problem, partly).reward == 0.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("42", "42"),
        (" 42\n", "42"),
        ("so <answer>42</answer>", "42"),
        ("<answer>1</answer> no, <answer>\n42\n</answer>.", "42"),
        ("<answer>42", "<answer>42"),
        ("<answer></answer>", ""),
    ],
)
def test_where_the_answer_stands(response: str, answer: str) -> None:
    assert extract(response) == answer


# Nothing that a policy writes is executed


def test_no_scorer_executes_what_the_policy_wrote() -> None:
    command = [sys.executable, "-m", "tests.support.scan_scorers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "executed: []"


@pytest.mark.parametrize(
    "task",
    EVALUATED,
)
def test_code_in_an_answer_stays_text(task: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    env = make(task)
    env.reset(seed=0)
    attack = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for text in (attack, f"[{attack}]", f"[[{attack}]]", f"x + {attack}", f"(lambda: {attack})()"):
        assert judge(env.task, env.problem.answer, text) <= 0.05
    assert not canary.exists()


def test_lists_still_count_where_the_scorer_takes_them() -> None:
    env = make("string_insertion")
    env.reset(seed=0)
    entry = env.problem.answer
    assert judge(env.task, entry, repr(list(entry["answer"]))) == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["puzzle24", "polynomial_multiplication", "simple_integration"])
def test_towers_of_powers_are_cut_short(task: str) -> None:
    env = make(task)
    env.reset(seed=0)
    begin = time.monotonic()
    _, reward, *_ = env.step("9**9**9**9**9")
    assert reward <= 0.05 and time.monotonic() - begin < 60  # left alone it would take for ever
    env.reset(seed=0)
    if task != "puzzle24":
        assert env.step(env.solution(env.problem, np.random.default_rng(0)))[1] == 1.0  # the pool goes on


@pytest.mark.parametrize(
    "task",
    slow_unless(
        lambda task: task == "sudoku", ["gcd", "sudoku", "tower_of_hanoi", "countdown", "codeio", "boxnet"]
    ),
)
def test_hostile_text_earns_nothing_and_ends_in_time(task: str) -> None:
    from ecrl.envs.conformance import HOSTILE

    env = make(task)
    for text in HOSTILE:
        env.reset(seed=4)
        begin = time.monotonic()
        assert env.step(text)[1] == 0.0
        assert time.monotonic() - begin < 60


# Settings and levels


def test_settings_reach_the_task() -> None:
    env = make("leg_counting", min_animals=2, max_animals=2)
    prompt, _ = env.reset(seed=0)
    assert len(env.problem.answer["metadata"]["animals"]) == 2
    assert prompt != make("leg_counting").reset(seed=0)[0]


def test_levels_are_the_tasks_curriculum() -> None:
    lengths = []
    for level in (0, 3):
        env = make("chain_sum", level=level)
        terms = []
        for seed in range(20):
            env.reset(seed=seed)
            terms.append(env.problem.answer["metadata"]["num_terms"])
        lengths.append(max(terms))
    assert lengths[0] < lengths[1]
    env = make("chain_sum", level=3, min_terms=2, max_terms=2)
    env.reset(seed=0)
    assert env.problem.answer["metadata"]["num_terms"] == 2


@pytest.mark.parametrize(
    ("task", "kwargs", "message"),
    [
        ("gcd", {"max_numbr": 3}, "max_numbers"),
        ("gcd", {"seed": 3}, "Unknown setting of reasoning_gym/gcd 'seed'"),
        ("gcd", {"min_numbers": 1}, "refuses its settings"),
        ("gcd", {"level": 99}, "has levels 0 to"),
        ("gcd", {"level": -1}, "level must be an integer"),
        ("acre", {"level": 0}, "has no curriculum"),
        ("gcd", {"max_numbers": object()}, "plain data"),
        ("composite", {"datasets": None}, "needs datasets="),
        ("composite", {"datasets": [{"nam": "gcd"}]}, "needs datasets="),
        ("composite", {"datasets": [{"name": "gdc"}]}, "refuses its settings"),
    ],
)
def test_bad_settings_are_one_line(task: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(task, **kwargs)
    assert "\n" not in str(caught.value)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="chain_sum"):
        ReasoningGymEnv(task="chainsum")


@pytest.mark.parametrize("name", ["reasoning_gym/gcd", "reasoning_gym/gcd-v0"])
def test_the_config_takes_its_name(name: str) -> None:
    config = build_config([f"env={name}", "env.kwargs.level=1"])
    assert (config.env.id, config.env.kwargs) == ("reasoning_gym/gcd-v0", {"level": 1})


def test_programs_that_come_with_a_task_leave_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seed = 2189  # draws a program that writes simulation_data.txt where it is
    task = Task("codeio", None, "{}")
    question = draw(task, seed)["question"]
    assert [file.name for file in tmp_path.iterdir()] == [
        "simulation_data.txt"
    ]  # so the seed is still a bad one
    (tmp_path / "simulation_data.txt").unlink()
    env = ReasoningGymEnv(task="codeio")
    entry = env._entry(seed)
    assert entry["question"] == question
    assert list(tmp_path.iterdir()) == []
    composite = Task("composite", None, json.dumps({"datasets": [{"name": "codeio"}]}))
    assert runs_programs(composite) and not runs_programs(Task("gcd", None, "{}"))


def test_a_maze_that_is_not_found_is_the_next_seeds() -> None:
    env = make("maze")
    with pytest.raises(RuntimeError):  # so the seed is still a bad one
        draw(env.task, 5843)
    assert env._entry(5843) == draw(env.task, 5844)


def test_a_seed_without_an_entry_gives_that_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    env, tried = make("gcd"), []

    def give_up(task: Task, seed: int) -> dict[str, Any]:
        tried.append(seed)
        if seed < limit:
            raise RuntimeError("no maze")
        return draw(task, seed)

    monkeypatch.setattr("ecrl.envs.reasoning_gym.tasks.draw", give_up)
    limit = 12
    assert env._entry(10)["question"] == draw(env.task, 12)["question"]
    assert tried == [10, 11, 12]
    limit = 1000
    with pytest.raises(EcrlError, match=r"20 entries in a row could not be drawn \(RuntimeError: no maze\)"):
        env._entry(10)


def test_splits_are_disjoint() -> None:
    keys = {}
    for split in ("train", "val"):
        env = make("chain_sum", split=split)
        keys[split] = {env.reset(seed=item_seed(0, i))[1]["problem"].key for i in range(200)}
    assert len(keys["val"]) > 100 and not keys["train"] & keys["val"]


@pytest.mark.slow
def test_levels_either_draw_or_say_why_not() -> None:
    made, refusals = 0, []
    for task, level in product(sorted(set(TASKS) - {"composite"}), range(3)):
        try:
            dataset(Task(task, level, "{}"))
            made += 1
        except UsageError as error:
            refusals.append(str(error))
    # The package's own curricula have a few levels that its tasks refuse.
    assert made > 280
    assert all(re.search("has no curriculum|has levels 0 to|refuses its settings", r) for r in refusals)
