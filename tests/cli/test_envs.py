"""`ecrl envs show` and `ecrl envs check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.policy.model import load_tokenizer
from tests.support.cli import refused


def test_show_prints_a_right_and_a_wrong_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "show", "countdown", "numbers=4"]) == 0
    output = capsys.readouterr().out
    for part in (
        "ecrl/Countdown-v0",
        "Text(",
        "operators",
        "'+-*'",
        "a right answer earns 1",
        "a wrong answer earns 0",
        "the verifier reads '32'",
    ):
        assert part in output


def test_show_prints_what_a_policy_reads(
    chat_model: Path, chat_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "envs",
        "show",
        "gsm8k",
        f"path={chat_data / 'gsm8k.jsonl'}",
        "val_part=null",
        f"model.path={chat_model}",
    ]
    assert main([*words, "model.chat.system=Be brief.", "seed=3", "answer=It is \\boxed{7}."]) == 0
    output = capsys.readouterr().out
    text = output.partition("as the policy reads it: ")[2]
    count, _, text = text.partition(" tokens; the model's window of 2048 tokens, beside ")
    text = text.partition("\n")[2]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    prompt = text.partition("the right answer: ")[0].removesuffix("\n")
    tokenizer = load_tokenizer(str(chat_model))
    assert prompt.endswith("<|im_start|>assistant\n")
    assert int(count) == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    assert "your answer earns" in output and "; the verifier reads '7'\nIt is \\boxed{7}.\n" in output
    assert main([*words, "seed=4"]) == 0
    assert capsys.readouterr().out != output


def test_the_papers_prompt(chat_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "show", "countdown", f"model.path={chat_model}", "model.chat.template=paper"]) == 0
    text = capsys.readouterr().out.partition("allows ")[2].partition("\n")[2]
    assert text.startswith("A conversation between User and Assistant. The user asks a question, and")
    assert " <answer> answer here </answer>. User: " in text
    assert ".\nAssistant: Let me solve this step by step.\n<think>\n" in text
    assert refused(
        capsys, "envs", "show", "countdown", f"model.path={chat_model}", "model.chat.template=papers"
    ).endswith("Give a file, or one of the names paper.\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["envs", "show"], "ecrl envs show ID"),
        (["envs", "check", "numbers=3"], "ecrl envs check ID"),
        (["envs", "check", "nowhere"], "nowhere"),
        (["envs", "show", "countdown", "digits=3"], "digits"),
        (["envs", "list"], "ecrl envs show ID"),
        (["envs", "check", "countdown", "seed=1"], "ecrl envs check ID"),
        (["envs", "show", "countdown", "split=test"], "split"),
        (["envs", "show", "countdown", "seed=-1"], "seed"),
        (["envs", "show", "countdown", "model.path=nowhere"], "model.path"),
        (["envs", "show", "countdown", "model.paths=x"], "model.paths"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


def test_checking_what_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", "ecrl/Gem-v0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "target" in captured.err
