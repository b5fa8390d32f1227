"""A policy with a chat template is asked in words, and its boxed or tagged answer is read."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from ecrl.envs.base import ReasoningEnv
from ecrl.envs.tasks.instructions import final_answer
from ecrl.policy.model import load_tokenizer
from ecrl.rollout.chat import Chat

ONE_ANSWER = ("Countdown", "Arithmetic", "Bases", "GraphPath", "Strings", "Sudoku", "GuessNumber")
TASKS = (*ONE_ANSWER, "Knights", "CountdownSteps")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3*5+7", "3*5+7"),
        (r"So \boxed{1} and then \boxed{ 3*5+7 }.", "3*5+7"),
        ("<answer>1</answer> no: <answer>\n3*5+7\n</answer>", "3*5+7"),
        (r"<answer>1</answer> \boxed{2}", "2"),
        (r"\boxed{2} <answer>1</answer>", "1"),
        (r"it is \boxed{3*5", r"it is \boxed{3*5"),
        ("", ""),
    ],
)
def test_the_last_box_or_tag_counts(response: str, answer: str) -> None:
    assert final_answer(response) == answer


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", [r"I think: \boxed{{{}}}", "<answer>{}</answer>"])
def test_every_task_asks_in_words_and_reads_the_answer(task: str, form: str, chat_model: Path) -> None:
    env = gym.make(f"ecrl/{task}-v0", disable_env_checker=True).unwrapped
    assert isinstance(env, ReasoningEnv)
    chat = Chat(load_tokenizer(str(chat_model)))
    for seed in range(5):
        prompt, info = env.reset(seed=seed)
        text = chat.text(prompt, info["messages"])
        assert r"within \boxed{}." in text
        right = env.solution(env.problem, np.random.default_rng(seed))
        last = right.strip().splitlines()[-4 if task == "Sudoku" else -1 :]
        answer = "\n".join(last).rpartition("=")[2] if task in ONE_ANSWER else last[0]
        assert env.score(env.problem, form.format(answer)).reward == 1
        assert env.score(env.problem, form.format("?")).reward == 0
