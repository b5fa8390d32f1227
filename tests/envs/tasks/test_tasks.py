"""Procedural tasks: answers recomputed by brute force, verifiers by hand, nothing that a text can break."""

from __future__ import annotations

import pickle
import re
import time
import warnings
from itertools import pairwise, permutations, product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.envs import Problem, ReasoningEnv, item_seed
from ecrl.envs.tasks.graph_path import GraphPathEnv
from ecrl.envs.tasks.guess_number import GuessNumberEnv
from ecrl.envs.tasks.knights import KnightsEnv
from ecrl.envs.tasks.number_bases import BasesEnv
from ecrl.envs.tasks.strings import OPERATIONS, StringsEnv, apply
from ecrl.envs.tasks.sudoku import SudokuEnv, _all_grids
from ecrl.errors import UsageError
from tests.support.hostile import HOSTILE

SETTINGS: dict[type[ReasoningEnv], list[dict[str, Any]]] = {
    KnightsEnv: [{}, {"people": 2}, {"people": 6, "claims": 4}],
    SudokuEnv: [{}, {"empty": 1}, {"empty": 11}],
    GraphPathEnv: [{}, {"nodes": 3, "edges": 0}, {"nodes": 12, "edges": 20, "weight": 9}],
    StringsEnv: [{}, {"length": 12, "steps": 6, "letters": 3}, {"operations": ["drop"], "steps": 8}],
    BasesEnv: [{}, {"low": 2, "high": 3}, {"high": 36, "maximum": 10**18}],
    GuessNumberEnv: [{}, {"size": 2}, {"size": 1000, "turns": 3}],
}
IDS = {cls: f"ecrl/{cls.__name__.removesuffix('Env')}-v0" for cls in SETTINGS}
CASES = [(cls, kwargs) for cls, many in SETTINGS.items() for kwargs in many]


def problems(env: ReasoningEnv, count: int) -> list[Problem]:
    return [env.reset(seed=item_seed(0, i))[1]["problem"] for i in range(count)]


@pytest.mark.parametrize(("cls", "kwargs"), CASES)
def test_solutions_earn_and_wrong_ones_mostly_do_not(cls: type[ReasoningEnv], kwargs: dict[str, Any]) -> None:
    env, rng = cls(**kwargs), np.random.default_rng(0)
    wrong = 0.0
    for problem in problems(env, 60):
        right = env.score(problem, env.solution(problem, rng))
        assert right.reward == 1.0 and right.answer is not None
        assert right.metrics == {"valid": 1.0}
        wrong += 1 - env.score(problem, env.solution(problem, rng, correct=False)).reward
    # Dropping letters forgives many slips.
    assert wrong > (0 if kwargs.get("operations") == ["drop"] else 50)


@pytest.mark.parametrize(("cls", "kwargs"), CASES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_gymnasium_is_content(cls: type[ReasoningEnv], kwargs: dict[str, Any], split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(IDS[cls], split=split, **kwargs).unwrapped)


@pytest.mark.parametrize("cls", SETTINGS)
def test_a_seed_is_a_problem_and_a_copy_goes_on(cls: type[ReasoningEnv]) -> None:
    one, other = cls(), cls()
    other.reset(seed=9)
    assert [p.prompt for p in problems(one, 20)] == [p.prompt for p in problems(other, 20)]
    twin = pickle.loads(pickle.dumps(one))
    assert twin.step("5")[:4] == one.step("5")[:4]
    assert twin.reset()[0] == one.reset()[0]


@pytest.mark.parametrize("cls", SETTINGS)
def test_splits_are_disjoint(cls: type[ReasoningEnv]) -> None:
    train, val = ({p.key for p in problems(cls(split=s), 400)} for s in ("train", "val"))  # type: ignore[arg-type]
    assert len(train) > 200 and len(val) > 40
    assert not train & val


@pytest.mark.parametrize("cls", SETTINGS)
@pytest.mark.parametrize("text", [*HOSTILE, "A=knight " * 99_999, "1\n" * 99_999, "A-" * 99_999], ids=len)
def test_hostile_text_earns_nothing_and_fast(cls: type[ReasoningEnv], text: str) -> None:
    env = cls()
    for problem in problems(env, 3):
        start = time.process_time()
        assert env.score(problem, text).reward == 0.0
        assert time.process_time() - start < 2


def test_every_task_has_a_preset() -> None:
    assert set(IDS.values()) <= {build_config([f"env={name}"]).env.id for name in options("env")}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (KnightsEnv, "people", 1),
        (KnightsEnv, "claims", 1),
        (SudokuEnv, "empty", 13),
        (GraphPathEnv, "nodes", 27),
        (GraphPathEnv, "edges", -1),
        (GraphPathEnv, "weight", 0),
        (StringsEnv, "length", 1),
        (StringsEnv, "steps", 0),
        (StringsEnv, "letters", 27),
        (StringsEnv, "operations", ["rot13"]),
        (StringsEnv, "operations", []),
        (StringsEnv, "operations", "reverse"),
        (BasesEnv, "low", 1),
        (BasesEnv, "high", 37),
        (BasesEnv, "maximum", 9),
        (GuessNumberEnv, "size", 1),
        (GuessNumberEnv, "turns", 65),
    ],
)
def test_bad_arguments_are_named(cls: type[ReasoningEnv], name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be .*got"):
        cls(**{name: value})


# Knights and knaves


def _says(sentence: str, kinds: dict[str, str]) -> bool:
    """Whether a sentence of the prompt is true, read from its text alone."""
    facts = [kinds[who] == kind for who, kind in re.findall(r"([A-Z]) is a (knight|knave)", sentence)]
    return any(facts) if " or " in sentence else all(facts)


@pytest.mark.parametrize("kwargs", SETTINGS[KnightsEnv])
def test_knights_have_one_answer_by_the_text_of_the_prompt(kwargs: dict[str, Any]) -> None:
    env = KnightsEnv(**kwargs)
    for problem in problems(env, 20):
        sentences = dict(re.findall(r"([A-Z]): ([^.]*)\.", problem.prompt))
        fitting = []
        for kinds in product(("knight", "knave"), repeat=len(sentences)):
            world = dict(zip(sentences, kinds, strict=True))
            if all(_says(text, world) == (world[who] == "knight") for who, text in sentences.items()):
                fitting.append(" ".join(f"{who}={kind}" for who, kind in world.items()))
        assert len(fitting) == 1
        assert env.score(problem, fitting[0]).reward == 1.0


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("A=knave B=knight", 1, 1),
        ("B=knight, A=knave\n", 1, 1),
        ("A=knight B=knight: no, A\nA=knave B=knight", 1, 1),
        ("A=knight B=knight", 0, 1),
        ("A=knave", 0, 0),
        ("A=knave B=knight C=knight", 0, 0),
        ("A=knave A=knave B=knight", 0, 0),
        ("A=knave B=knight A=knight", 0, 0),
        ("A=knave A=knight", 0, 0),
        ("A=knave B=knight\nDone.", 0, 0),
        ("So A=knave B=knight", 0, 0),
        ("a=knave b=knight", 0, 0),
        ("A=knave B=knights", 0, 0),
        ("А=knave B=knight", 0, 0),  # a Cyrillic A
    ],
)
def test_knights_by_hand(response: str, reward: float, valid: float) -> None:
    problem = Problem("", ((), (False, True)))
    score = KnightsEnv(people=2).score(problem, response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


# Sudoku


def test_there_are_288_grids() -> None:
    assert _all_grids().shape == (288, 16)


@pytest.mark.parametrize("empty", [1, 6, 10, 12])
def test_sudokus_have_one_solution_by_backtracking(empty: int) -> None:
    env = SudokuEnv(empty=empty)
    for problem in problems(env, 5):
        rows = problem.prompt.split()
        assert sum(row.count(".") for row in rows) == empty
        solutions = _fill([list(row) for row in rows])
        assert len(solutions) == 1
        assert env.score(problem, "so:\n" + solutions[0]).reward == 1.0


def _fill(board: list[list[str]]) -> list[str]:
    for r, c in product(range(4), repeat=2):
        if board[r][c] == ".":
            found = []
            for digit in "1234":
                box = [board[r // 2 * 2 + i][c // 2 * 2 + j] for i, j in product(range(2), repeat=2)]
                if digit not in board[r] and digit not in [row[c] for row in board] and digit not in box:
                    board[r][c] = digit
                    found += _fill(board)
                    board[r][c] = "."
            return found
    return ["\n".join("".join(row) for row in board)]


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("1234\n3412\n2143\n4321", 1, 1),
        ("1 2 3 4\n\n3 4 1 2\n2 1 4 3\n4 3 2 1\n", 1, 1),
        ("1,1=1\n1234\n3412\n2143\n4321", 1, 1),
        ("1234\n3412\n2143\n4312", 0, 1),
        ("2143\n3412\n1234\n4321", 0, 1),
        ("1234341221434321", 0, 0),
        ("1234\n3412\n2143", 0, 0),
        ("1234\n3412\n2143\n432", 0, 0),
        ("1234\n3412\n2143\n4325", 0, 0),
        ("1234\n3412\n2143\n4321\nok", 0, 0),
        ("１234\n3412\n2143\n4321", 0, 0),
    ],
)
def test_sudoku_by_hand(response: str, reward: float, valid: float) -> None:
    problem = Problem("", (np.zeros(16, np.int8), "1234\n3412\n2143\n4321\n"))
    score = SudokuEnv().score(problem, response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


# Graph path


@pytest.mark.parametrize("kwargs", [{}, {"nodes": 5, "edges": 5}, {"nodes": 6, "edges": 4, "weight": 9}])
def test_graph_paths_are_shortest_by_enumeration(kwargs: dict[str, Any]) -> None:
    env, rng = GraphPathEnv(**kwargs), np.random.default_rng(0)
    for problem in problems(env, 15):
        edges: dict[tuple[str, str], int] = {}
        for a, b, weight in re.findall(r"([A-Z])-([A-Z])(?::([0-9]))?", problem.prompt):
            edges[a, b] = edges[b, a] = int(weight or 1)
        start, end = re.findall(r": ([A-Z]) to ([A-Z])", problem.prompt)[0]
        assert (start, end) not in edges
        rest = sorted({a for a, _ in edges} - {start, end})
        lengths: dict[str, int] = {}
        for count in range(len(rest) + 1):
            for middle in permutations(rest, count):
                path = [start, *middle, end]
                steps = list(pairwise(path))
                if all(step in edges for step in steps):
                    lengths["-".join(path)] = sum(edges[step] for step in steps)
        best = min(lengths.values())
        assert all((env.score(problem, p).reward == 1.0) == (d == best) for p, d in lengths.items())
        found = {env.solution(problem, rng).rpartition("\n")[2] for _ in range(30)}
        assert found <= {p for p, d in lengths.items() if d == best}


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("A-B-C", 1, 1),
        ("A=0 B=1 D=1 C=2\nA - D - C\n", 1, 1),
        ("A-D-E-C", 0, 1),
        ("A-B-A-B-C", 0, 1),
        ("A-C", 0, 0),
        ("C-B-A", 0, 0),
        ("A-B", 0, 0),
        ("A", 0, 0),
        ("A--B-C", 0, 0),
        ("a-b-c", 0, 0),
        ("A-B-C.", 0, 0),
        ("A-Z-C", 0, 0),
        ("", 0, 0),
    ],
)
def test_graph_path_by_hand(response: str, reward: float, valid: float) -> None:
    from ecrl.envs.tasks.graph_path import Goal

    graph = {"A": "BD", "B": "AC", "C": "BDE", "D": "ACE", "E": "CD"}
    goal = Goal({a: dict.fromkeys(near, 1) for a, near in graph.items()}, "A", "C", 2)
    score = GraphPathEnv().score(Problem("", goal), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


def test_a_graph_without_room_says_so() -> None:
    with pytest.raises(UsageError, match="take fewer"):
        GraphPathEnv(nodes=3, edges=9).reset(seed=0)


# Strings


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("reverse", "zabca"),
        ("sort", "aabcz"),
        ("rotate", "cbaza"),
        ("double", "aaccbbaazz"),
        ("halve", "abz"),
        ("drop a", "cbz"),
        ("drop x", "acbaz"),
        ("next", "bdcba"),
    ],
)
def test_operations_by_hand(operation: str, result: str) -> None:
    assert apply(operation, "acbaz") == result


def test_strings_ask_for_what_they_are_told_to() -> None:
    for name in OPERATIONS:
        env = StringsEnv(operations=[name], steps=8, length=32)
        for problem in problems(env, 5):
            start, _, names = problem.prompt.strip().partition(": ")
            assert {n.split()[0] for n in names.split(", ")} == {name}
            for operation in names.split(", "):
                start = apply(operation, start)
            assert start == problem.answer != ""


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("reverse=cba", 1, 1),
        ("cba", 1, 1),
        (" = cba\n", 1, 1),
        ("abc", 0, 1),
        ("cba=abc", 0, 1),
        ("CBA", 0, 0),
        ("c b a", 0, 0),
        ("cba.", 0, 0),
        ("cba=", 0, 0),
    ],
)
def test_strings_by_hand(response: str, reward: float, valid: float) -> None:
    score = StringsEnv().score(Problem("abc: reverse\n", "cba"), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


# Bases


@pytest.mark.parametrize("kwargs", SETTINGS[BasesEnv])
def test_bases_agree_with_python(kwargs: dict[str, Any]) -> None:
    env, rng = BasesEnv(**kwargs), np.random.default_rng(0)
    for problem in problems(env, 100):
        number, source, target = re.findall(r"\S+(?= base)|\d+(?= to)|(?<=to )\d+", problem.prompt)
        assert source != target
        assert int(number, int(source)) == int(problem.answer, int(target)) <= env.maximum
        steps = env.solution(problem, rng).split(" ")[:-1]
        # The steps are the environment's own, so Python may judge them.
        assert all(eval(left) == eval(right) for left, right in (s.split("=") for s in steps))


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("1*16+10=26 =1a", 1, 1),
        ("1A", 1, 1),
        (" 1a ", 1, 1),
        ("26", 0, 1),
        ("01a", 0, 0),
        ("0x1a", 0, 0),
        ("1a.", 0, 0),
        ("-1a", 0, 0),
        ("1 a", 0, 0),
        ("１a", 0, 0),
        ("", 0, 0),
    ],
)
def test_bases_by_hand(response: str, reward: float, valid: float) -> None:
    score = BasesEnv().score(Problem("26 base 10 to 16\n", "1a"), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


def test_two_bases_are_needed() -> None:
    with pytest.raises(UsageError, match="high must be above low=16"):
        BasesEnv(low=16, high=16)


# Guess the number


@pytest.mark.parametrize("size", [2, 3, 31, 32, 1000])
def test_halving_the_range_always_finds_the_number(size: int) -> None:
    env = GuessNumberEnv(size=size)
    for seed in range(50):
        prompt, info = env.reset(seed=seed)
        low, high = map(int, re.findall(r"[0-9]+", prompt))
        assert high - low + 1 == size and low <= info["problem"].answer <= high
        terminated, turns = False, 0
        while not terminated:
            guess = (low + high) // 2
            observation, reward, terminated, truncated, info = env.step(f" {guess}\n")
            turns += 1
            assert not truncated and reward == float(terminated)
            assert info["metrics"] == {"valid": 1.0, "turns": turns}
            low, high = (guess + 1, high) if observation == "\nhigher\n" else (low, guess - 1)


def test_turns_run_out_and_begin_anew() -> None:
    env = GuessNumberEnv(size=1000, turns=3)
    for _ in range(2):
        _, info = env.reset(seed=1)
        wrong = str(info["problem"].answer - 1)
        assert env.step("what?")[:4] == ("\nWrite a number.\n", 0.0, False, False)
        assert env.step(wrong)[:4] == ("\nhigher\n", 0.0, False, False)
        assert env.step(wrong)[:4] == ("", 0.0, False, True)
