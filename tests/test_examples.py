"""The examples: what they make loads and is as they say."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from transformers import AutoTokenizer

from ecrl.config.compose import build_config
from ecrl.envs.safe_calls import make
from examples.small_chat_model import FILES, WINDOW
from tests.support.paths import ROOT


def test_the_chat_model_reads_conversations(chat_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is $12 + 7$?"}], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert [tokenizer.decode(i) for i in tokenizer("12 + 7").input_ids] == ["1", "2", " +", " ", "7"]


def test_every_file_makes_problems(chat_data: Path) -> None:
    for name in FILES:
        env = build_config([f"env={name}", f"env.kwargs.path={chat_data / name}.jsonl"]).env
        problem = make(env.id, "train", dict(env.kwargs)).reset(seed=0)[1]["problem"]
        assert problem.prompt


def test_one_prompt_is_longer_than_the_window(chat_model: Path, chat_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    rows = [json.loads(line) for line in (chat_data / "dapo_math_17k.jsonl").open()]
    lengths = [len(tokenizer(row["prompt"][0]["content"]).input_ids) for row in rows]
    assert sum(length > WINDOW for length in lengths) == 1
    assert sorted(lengths)[len(lengths) // 2] < 100


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = ROOT / "examples" / "entropy_collapse.ipynb"
    assert path.stat().st_size < 200_000
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("→" in output.get("text", "") for output in outputs)
