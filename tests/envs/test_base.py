"""Environments: Gymnasium's contract over the whole registry, then each verifier by hand."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import sys
import time
import timeit
import warnings
from fractions import Fraction
from itertools import product
from operator import add, mul, sub, truediv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.envs.spaces import SharedTexts, Text
from ecrl.envs.tasks.arithmetic import ArithmeticEnv
from ecrl.envs.tasks.countdown import CountdownEnv, Goal, _random_expression, evaluate
from ecrl.errors import UsageError
from tests.support.hostile import HOSTILE

ENV_IDS = ["ecrl/Arithmetic-v0", "ecrl/Countdown-v0"]


def make(env_id: str, **kwargs: Any) -> ReasoningEnv:
    env = gym.make(env_id, **kwargs).unwrapped
    assert isinstance(env, ReasoningEnv)
    return env


def problems(env: ReasoningEnv, count: int) -> list[Problem]:
    return [env.reset(seed=item_seed(0, i))[1]["problem"] for i in range(count)]


# The whole registry


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_check_env_without_a_warning(env_id: str, split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(env_id, split=split))


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_one_step_episode(env_id: str) -> None:
    env = gym.make(env_id)
    prompt, info = env.reset(seed=3)
    assert prompt == info["problem"].prompt
    assert all(c == "\n" or " " <= c <= "~" for c in prompt)
    observation, reward, terminated, truncated, info = env.step("?")
    assert (observation, reward, terminated, truncated) == ("", 0.0, True, False)
    assert set(info) == {"metrics", "answer"}
    assert info["answer"] is None


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_same_seed_same_problems(env_id: str) -> None:
    first, second = make(env_id), make(env_id)
    first.reset(seed=99)
    assert [first.reset(seed=7)[0]] + [first.reset()[0] for _ in range(20)] == [second.reset(seed=7)[0]] + [
        second.reset()[0] for _ in range(20)
    ]
    assert len({first.reset(seed=i)[0] for i in range(50)}) > 25


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_global_random_state_is_left_alone(env_id: str) -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    env = make(env_id)
    _, info = env.reset(seed=1)
    env.solution(info["problem"], np.random.default_rng(0))
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_pickle_goes_on_where_it_was(env_id: str) -> None:
    env = gym.make(env_id, split="val")
    env.reset(seed=5)
    twin = pickle.loads(pickle.dumps(env))
    assert twin.step("1+1")[1:] == env.step("1+1")[1:]
    assert [twin.reset()[0] for _ in range(5)] == [env.reset()[0] for _ in range(5)]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_splits_are_disjoint(env_id: str) -> None:
    keys = {split: {p.key for p in problems(make(env_id, split=split), 1500)} for split in ("train", "val")}
    assert len(keys["train"]) > len(keys["val"]) > 50
    assert not keys["train"] & keys["val"]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("env_id", ENV_IDS)
def test_make_vec(env_id: str, mode: str) -> None:
    single = [make(env_id) for _ in range(2)]
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode)
    try:
        for seed in (11, 21):
            prompts, infos = envs.reset(seed=seed)
            expected = [env.reset(seed=seed + i) for i, env in enumerate(single)]
            assert prompts == tuple(prompt for prompt, _ in expected)
            right = single[0].solution(infos["problem"][0], np.random.default_rng(0))
            observations, rewards, terminated, truncated, infos = envs.step((right, "?"))
            assert observations == ("", "")
            assert rewards.tolist() == [1.0, 0.0]
            assert terminated.all()
            assert not truncated.any()
            assert infos["answer"][0] is not None
            assert infos["metrics"]["valid"].tolist() == [1.0, 0.0]
        prompts, *_ = envs.step(("", ""))
        assert prompts == tuple(env.reset()[0] for env in single)
    finally:
        envs.close()


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_solutions(env_id: str, split: str) -> None:
    env, rng = make(env_id, split=split), np.random.default_rng(0)
    wrong = 0.0
    for problem in problems(env, 300):
        score = env.score(problem, env.solution(problem, rng))
        assert (score.reward, score.metrics) == (1.0, {"valid": 1.0})
        assert score.answer is not None
        score = env.score(problem, env.solution(problem, rng, correct=False))
        assert score.metrics == {"valid": 1.0}
        wrong += 1 - score.reward
    assert wrong > 200


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_scores_nothing_and_fast(env_id: str, text: str) -> None:
    env = make(env_id)
    for problem in problems(env, 3):
        start = time.process_time()
        assert env.score(problem, text).reward == 0.0
        assert time.process_time() - start < 2


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_noise_scores_nothing(env_id: str) -> None:
    env = make(env_id)
    env.action_space.seed(0)
    _, info = env.reset(seed=0)
    rewards = [env.score(info["problem"], env.action_space.sample()).reward for _ in range(500)]
    assert sum(rewards) == 0


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_overhead(env_id: str) -> None:
    env = make(env_id)

    def play() -> None:
        env.reset(seed=12345)
        env.step("1+2=3 3+4=7")

    # About 35 µs; the bound leaves room for a slow, busy machine.
    assert min(timeit.repeat(play, number=200, repeat=5)) / 200 < 250e-6


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (CountdownEnv, "split", "test"),
        (CountdownEnv, "operators", ""),
        (CountdownEnv, "operators", "++"),
        (CountdownEnv, "operators", "+%"),
        (CountdownEnv, "operators", None),
        (CountdownEnv, "numbers", 1),
        (CountdownEnv, "numbers", 7),
        (CountdownEnv, "low", 0),
        (CountdownEnv, "low", 10),
        (CountdownEnv, "high", 2.5),
        (ArithmeticEnv, "split", None),
        (ArithmeticEnv, "operators", "+/"),
        (ArithmeticEnv, "steps", 0),
        (ArithmeticEnv, "steps", "2"),
        (ArithmeticEnv, "steps", True),
        (ArithmeticEnv, "digits", 10),
    ],
)
def test_bad_arguments_are_named(cls: type[ReasoningEnv], name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be .*got"):
        cls(**{name: value})


# The base


class Fixed(ReasoningEnv):
    """A single problem."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem("again?\n", "yes")

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.answer), answer=response)


def test_a_split_that_cannot_be_reached_says_so() -> None:
    outcomes = []
    for split in ("train", "val"):
        try:
            Fixed(split=split).reset(seed=0)  # type: ignore[arg-type]
            outcomes.append("drawn")
        except UsageError as error:
            assert f"split={split!r}" in str(error)
            outcomes.append("refused")
    assert sorted(outcomes) == ["drawn", "refused"]


def test_step_before_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        Fixed().step("yes")


def test_a_base_without_solutions_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Fixed"):
        Fixed().solution(Problem("", ""), np.random.default_rng(0))


def test_problem_key_defaults_to_the_prompt() -> None:
    assert Problem("a", 1).key == "a"
    assert Problem("a", 1, "b").key == "b"


def test_item_seeds_do_not_overlap() -> None:
    seeds = [item_seed(seed, index) for seed in (0, 1, 42, 43, 5 + (7 << 32)) for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    # Where zero-padded words would collide: [5, 7] and [5 + (7 << 32), 0].
    assert item_seed(5, 7) != item_seed(5 + (7 << 32), 0)
    assert item_seed(5, 7) == item_seed(5, 7)
    assert all(type(seed) is int and 0 <= seed < 1 << 64 for seed in seeds)


def test_an_environment_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mod.py").write_text(
        "import gymnasium\n"
        "from ecrl.envs import Problem, ReasoningEnv, Score\n"
        "class MyTask(ReasoningEnv):\n"
        "    def sample_problem(self, rng):\n"
        "        n = int(rng.integers(1000))\n"
        "        return Problem(f'{n}', str(n)[::-1])\n"
        "    def score(self, problem, response):\n"
        "        return Score(float(response == problem.answer))\n"
        "gymnasium.register('me/MyTask-v0', entry_point=MyTask)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        env = gym.make("mypkg.mod:me/MyTask-v0", split="val")
        check_env(env.unwrapped)
        prompt, _ = env.reset(seed=1)
        assert env.step(prompt[::-1])[1] == 1.0
    finally:
        gym.registry.pop("me/MyTask-v0", None)
        for module in ("mypkg.mod", "mypkg"):
            sys.modules.pop(module, None)


# The text space


def test_text_space() -> None:
    space = Text(5, seed=0)
    assert "" in space
    assert "∀x∈ℝ" in space
    assert "12345" in space
    assert "123456" not in space
    assert 12 not in space
    assert space == Text(5)
    assert hash(space) == hash(Text(5))
    assert space != Text(6)
    assert space != gym.spaces.Text(5)
    assert {len(space.sample()) for _ in range(200)} == {0, 1, 2, 3, 4, 5}
    assert max(len(Text(10_000, seed=0).sample()) for _ in range(200)) <= 64


def test_text_space_samples_by_its_seed() -> None:
    space = Text(1000)
    space.seed(3)
    first = [space.sample() for _ in range(5)]
    space.seed(3)
    twin = pickle.loads(pickle.dumps(space))
    assert [twin.sample() for _ in range(5)] == [space.sample() for _ in range(5)] == first
    assert set("".join(space.sample() for _ in range(500))) == set(map(chr, range(32, 127)))


def test_text_space_refuses_masks_and_bad_lengths() -> None:
    with pytest.raises(ValueError, match="mask"):
        Text(5).sample(mask=(1, None))
    with pytest.raises(ValueError, match="-1"):
        Text(-1)


def test_shared_texts_are_a_view() -> None:
    memory = np.zeros((2, 4), np.int32)
    texts = SharedTexts(memory)
    empty = copy.deepcopy(texts)
    memory[1] = [3, ord("a"), 0x1F600, 0]
    assert tuple(texts) == ("", "a\U0001f600\x00")
    assert texts[0:1] == ("",)
    assert empty == ("", "")


# Countdown


GOAL = Problem("3 5 7 = 22\n", Goal((3, 5, 7), 22))


@pytest.mark.parametrize(
    ("response", "reward", "valid", "answer"),
    [
        ("3*5+7", 1, 1, "22"),
        ("7+5*3", 1, 1, "22"),
        ("(3*5)+7", 1, 1, "22"),
        (" 3 * 5 + 7\n", 1, 1, "22"),
        ("((7)+((5)*(3)))", 1, 1, "22"),
        ("3*(5+7)", 0, 1, "36"),
        ("3-5-7", 0, 1, "-9"),
        ("3-(5-7)", 0, 1, "5"),
        ("3*5", 0, 0, None),  # 7 is unused
        ("3*5+7+7", 0, 0, None),  # 7 is used twice
        ("3*5+7+3-3", 0, 0, None),
        ("22", 0, 0, None),
        ("15+7", 0, 0, None),
        ("35*7", 0, 0, None),
        ("3 5*7", 0, 0, None),  # a missing operator, not 35
        ("3*5+7=22", 0, 0, None),
        ("3*5+7 done", 0, 0, None),
        ("so 3*5+7", 0, 0, None),
        ("03*5+7", 0, 0, None),  # leading zero
        ("3*5+7.0", 0, 0, None),
        ("-3+5*7", 0, 0, None),  # no signs
        ("3*5+-7", 0, 0, None),
        ("3**5+7", 0, 0, None),
        ("3*/5+7", 0, 0, None),
        ("3*5+7)", 0, 0, None),
        ("(3*5+7", 0, 0, None),
        (")3*5+7(", 0, 0, None),
        ("3()*5+7", 0, 0, None),
        ("()3*5+7", 0, 0, None),
        ("3(5)7", 0, 0, None),
        ("3*5+7+", 0, 0, None),
        ("", 0, 0, None),
        ("３*５+７", 0, 0, None),  # full-width digits
        ("3*5+٧", 0, 0, None),
        ("3*5+7²", 0, 0, None),
        ("3*5\u00a0+7", 0, 0, None),  # no ASCII white space
        ("3/5+7", 0, 0, None),  # not among the operators
        ("3*5+7" + " " * 300, 0, 0, None),  # too long
    ],
)
def test_countdown_by_hand(response: str, reward: float, valid: float, answer: str | None) -> None:
    score = CountdownEnv().score(GOAL, response)
    assert score == Score(reward, {"valid": valid}, answer)


@pytest.mark.parametrize(
    ("text", "numbers", "value"),
    [
        ("8/(3-8/3)", (3, 3, 8, 8), Fraction(24)),  # 24 only by fractions
        ("1/3", (1, 3), Fraction(1, 3)),
        ("2/6*9", (2, 6, 9), Fraction(3)),
        ("2/(6*9)", (2, 6, 9), Fraction(1, 27)),
        ("999999*999999", (999_999, 999_999), 999_998_000_001),
        ("8-4-2", (2, 4, 8), 2),
        ("8/4/2", (2, 4, 8), Fraction(1)),
    ],
)
def test_evaluate_is_exact(text: str, numbers: tuple[int, ...], value: Fraction) -> None:
    assert evaluate(text, numbers, "+-*/") == value


def test_division_by_zero_scores_nothing() -> None:
    env = CountdownEnv(operators="+-*/")
    problem = Problem("5 5 1 = 1\n", Goal((1, 5, 5), 1))
    assert env.score(problem, "1/(5-5)") == Score(0.0, {"valid": 0.0})
    assert env.score(problem, "1*5/5") == Score(1.0, {"valid": 1.0}, "1")
    assert env.score(problem, "1/5/5") == Score(0.0, {"valid": 1.0}, "1/25")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"numbers": 2, "operators": "-"},
        {"numbers": 4, "operators": "+-*/"},
        {"numbers": 3, "high": 1_000_000, "operators": "*/"},
        {"numbers": 3, "operators": "/"},
        {"numbers": 5, "low": 7, "operators": "-+"},
    ],
)
def test_countdown_problems_are_solvable(kwargs: dict[str, Any]) -> None:
    env, rng = CountdownEnv(**kwargs), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(50)):
        goal: Goal = problem.answer
        assert goal.target >= 1
        numbers, _, target = problem.prompt.partition(" = ")
        assert sorted(map(int, numbers.split())) == list(goal.numbers)
        assert target == f"{goal.target}\n"
        assert problem.key == f"{' '.join(map(str, goal.numbers))} = {goal.target}\n"
        assert env.score(problem, env.solution(problem, rng)).reward == 1.0


def test_countdown_solutions_are_all_found_equally_often() -> None:
    env, rng = CountdownEnv(), np.random.default_rng(0)
    found = [env.solution(GOAL, rng) for _ in range(800)]
    # 22 = 3·5 + 7 alone: both orders of the sum times both of the product.
    assert set(found) == {"3*5+7", "5*3+7", "7+3*5", "7+5*3"}
    assert all(150 < found.count(text) < 250 for text in set(found))
    # 9 over 2, 2, 5: 12 trees of two sums and 4 of a product and a sum.
    found = [env.solution(Problem("", Goal((2, 2, 5), 9)), rng) for _ in range(2000)]
    assert 430 < sum("*" in text for text in found) < 570


def test_countdown_writes_only_the_parentheses_it_needs() -> None:
    rng, numbers = np.random.default_rng(0), (2, 3, 4)
    drawn = [_random_expression(numbers, "+-*/", rng) for _ in range(3000)]
    texts = {expression.text for expression in drawn}
    assert {"2+3+4", "2*3*4", "2-(3-4)", "2-(3+4)", "2-3-4", "(2+3)*4", "2/(3/4)", "2*3/4"} <= texts
    assert not {"(2+3)+4", "2+(3-4)", "(2-3)-4", "(2*3)+4", "2*(3/4)"} & texts
    assert all(evaluate(expression.text, numbers, "+-*/") == expression.value for expression in drawn)


def _by_python(text: str) -> Fraction | None:
    """What Python's own parser makes of an expression; None where it goes beyond Countdown's grammar."""

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(int(number)):
                return Fraction(number)
            case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as operator, right):
                functions = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}
                result: Fraction = functions[type(operator)](value(left), value(right))
                return result
        raise SyntaxError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `1(2)` is "perhaps a missing comma"
            return value(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return None


def test_countdown_reads_as_python_does() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(tokens) for length in range(6) for tokens in product("12+-*/()", repeat=length)]
    texts += ["".join(rng.permutation(list("1122+-*/()()")[: rng.integers(6, 13)])) for _ in range(5000)]
    agreed = 0
    for text in texts:
        if sorted(re.findall("[0-9]+", text)) not in (["1", "2"], ["1", "1", "2", "2"]):
            continue
        numbers = tuple(map(int, re.findall("[0-9]", text)))
        try:
            value: Any = evaluate(text, numbers, "+-*/")
        except ValueError:
            value = None
        except ZeroDivisionError:
            with pytest.raises(ZeroDivisionError):
                _by_python(text)
            continue
        assert value == _by_python(text), text
        agreed += value is not None
    assert agreed > 50


def test_countdown_without_any_target_says_so() -> None:
    env = CountdownEnv(numbers=2, low=9, high=9, operators="-")
    with pytest.raises(UsageError, match="no positive integer target"):
        env.sample_problem(np.random.default_rng(0))


# Arithmetic


@pytest.mark.parametrize(
    ("response", "reward", "valid", "answer"),
    [
        ("4*2=8 3+8=11", 1, 1, "11"),
        ("11", 1, 1, "11"),
        (" 11\n", 1, 1, "11"),
        ("=11", 1, 1, "11"),
        ("whatever = 11", 1, 1, "11"),
        ("3+4=7 7*2=14", 0, 1, "14"),
        ("11=12", 0, 1, "12"),
        ("-11", 0, 1, "-11"),
        ("4*2=8 3+8=", 0, 0, None),
        ("11 apples", 0, 0, None),
        ("3+8", 0, 0, None),
        ("011", 0, 0, None),
        ("+11", 0, 0, None),
        ("11.0", 0, 0, None),
        ("1 1", 0, 0, None),
        ("١١", 0, 0, None),
        ("１１", 0, 0, None),
        ("11\u00a0", 0, 0, None),
        ("-0", 0, 0, None),
        ("", 0, 0, None),
    ],
)
def test_arithmetic_by_hand(response: str, reward: float, valid: float, answer: str | None) -> None:
    score = ArithmeticEnv().score(Problem("3+4*2\n", "11"), response)
    assert score == Score(reward, {"valid": valid}, answer)


@pytest.mark.parametrize(
    ("prompt", "solution"),
    [
        ("3+4*2\n", "4*2=8 3+8=11"),
        ("2*3*4-5\n", "2*3=6 6*4=24 24-5=19"),
        ("3-8+2\n", "3-8=-5 -5+2=-3"),
        ("1-2*3-4*5\n", "2*3=6 4*5=20 1-6=-5 -5-20=-25"),
        ("12-7\n", "12-7=5"),
    ],
)
def test_arithmetic_works_products_first_then_from_the_left(prompt: str, solution: str) -> None:
    problem = Problem(prompt, solution.rpartition("=")[2])
    assert ArithmeticEnv().solution(problem, np.random.default_rng(0)) == solution


@pytest.mark.parametrize(("steps", "digits"), product((1, 2, 5), (1, 3)))
def test_arithmetic_answers_and_difficulty(steps: int, digits: int) -> None:
    env, rng = ArithmeticEnv(steps=steps, digits=digits), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(100)):
        expression = problem.prompt.removesuffix("\n")
        # The expression is the environment's own, so Python may judge it.
        assert problem.answer == str(eval(expression))
        assert sum(map(expression.count, "+-*")) == steps
        assert all(len(n) == digits for n in expression.translate({ord(c): " " for c in "+-*"}).split())


def test_an_arithmetic_slip_is_one_step_and_always_ends_wrong() -> None:
    env, rng = ArithmeticEnv(steps=3), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(300)):
        text = env.solution(problem, rng, correct=False)
        steps = [step.rpartition("=") for step in text.split(" ")]
        assert sum(eval(left) != int(result) for left, _, result in steps) == 1
        assert not re.search("[-+*]-", text), "a right operand is never negative in a correct solution"
        assert env.score(problem, text).reward == 0.0
