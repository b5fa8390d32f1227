"""Guess the number, in several turns."""

from __future__ import annotations

import re

import pytest

from ecrl.envs.tasks.guess_number import GuessNumberEnv


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
