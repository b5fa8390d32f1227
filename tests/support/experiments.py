"""The paper's experiments at tiny width: narrow models of the published architectures, and rows on disk.

Every token of a narrow model is an answer of its own, right or wrong, so that a random policy solves half of
the problems and every group has something to learn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer

from ecrl.config.eval_sets import validation_sets
from ecrl.config.schema import Config, EnvConfig
from ecrl.policy.meta_model import published
from tests.support.published_rows import MATHS, PROGRAMS
from tests.support.row_files import jsonl

#: The base models of the law's study, by preset: the hub's name, and the number of parameters on its card.
LAW_MODELS = {
    "qwen2_5_0_5b": ("Qwen/Qwen2.5-0.5B", 494_032_768),
    "qwen2_5_1_5b": ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
    "qwen2_5_3b": ("Qwen/Qwen2.5-3B", 3_085_938_688),
    "qwen2_5_7b": ("Qwen/Qwen2.5-7B", 7_615_616_512),
    "qwen2_5_32b": ("Qwen/Qwen2.5-32B", 32_763_876_352),
    "mistral_7b": ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
    "mistral_nemo_12b": ("mistralai/Mistral-Nemo-Base-2407", 12_247_782_400),
    "mistral_small_24b": ("mistralai/Mistral-Small-24B-Base-2501", 23_572_403_200),
    "llama3_2_3b": ("meta-llama/Llama-3.2-3B", 3_212_749_824),
    "llama3_1_8b": ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    "deepseek_math_7b": ("deepseek-ai/deepseek-math-7b-base", 6_910_365_696),
}
#: What makes any of the experiments short; the rest stays as it is.
SHORT = [
    "iterations=3",
    "rollout.prompts=8",
    "rollout.max_new_tokens=4",
    "update.max_tokens=2048",
    "eval.every=3",
    "eval.problems=4",
    "eval.k=2",
    "log.progress=false",
    "trainer.accelerator=cpu",
    "trainer.num_nodes=1",
    "trainer.cpu_offload=false",
]
_PROGRAM = "```python\ndef add(a, b):\n    return a {sign} b\nprint({number})\n```\n"
#: A wrong answer and a right one, to problems and to programming problems.
_ANSWERS = tuple(
    f"\\boxed{{{right}}}\n{_PROGRAM.format(sign='-+'[right], number=3 - right)}" for right in (0, 1)
)


def narrow_model(
    name: str, folder: Path, vocabulary: int = 512, head_dim: int = 8, loudness: float = 1.0
) -> Path:
    """Write a model of a published architecture with two layers of two narrow heads, and a tokenizer.

    Args:
        name: the hub's name.
        folder: where to write.
        vocabulary: number of tokens.
        head_dim: width of a head.
        loudness: factor on the LM head, and so on the logits, which are near 0 in a random model.
    """
    numbers = dict(published()[name])
    grouped = numbers["num_key_value_heads"] < numbers["num_attention_heads"]
    width = numbers["num_attention_heads"] * numbers.get("head_dim", 0) or numbers["hidden_size"]
    hidden = 2 * head_dim * numbers["hidden_size"] // width  # Mistral's are wider than their heads together
    numbers |= {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2}
    numbers |= {
        "num_attention_heads": 2,
        "num_key_value_heads": 1 if grouped else 2,
        "vocab_size": vocabulary,
    }
    numbers |= {"head_dim": head_dim} if "head_dim" in numbers else {}
    config = AutoConfig.for_model(**numbers, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        lm.get_output_embeddings().weight.mul_(loudness)
    lm.save_pretrained(folder)
    _tokenizer(vocabulary).save_pretrained(folder)
    return folder


def _tokenizer(size: int) -> Qwen2Tokenizer:
    """A token for each byte, as in the tiny model; the others are answers, which no text is split into."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<eos>", *alphabet]
    answers = [text.replace(" ", "Ġ").replace("\n", "Ċ") for text in _ANSWERS]
    names += [f"{answers[i % 2]}{i}" for i in range(size - len(names))]
    vocabulary = {name: i for i, name in enumerate(names)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=None, eos_token="<eos>", pad_token="<pad>")  # type: ignore[arg-type]


def write_data(config: Config, folder: Path) -> list[str]:
    """Write rows as the hub has them, for each data set that a run reads; return the overrides."""
    overrides = _write_env(config.env, folder / "train")
    for of in validation_sets(config) if config.eval.sets else ():
        overrides.append(f"{of.key}.kwargs.path={_write(of.env.kwargs, folder / of.name)}")
    return overrides


def _write_env(env: EnvConfig, folder: Path) -> list[str]:
    members = env.kwargs.get("envs")
    if members is None:
        return [f"env.kwargs.path={_write(env.kwargs, folder)}"]
    paths = [_write(member["kwargs"], folder / str(i)) for i, member in enumerate(members)]
    return [f"env.kwargs.envs.{i}.kwargs.path={path}" for i, path in enumerate(paths)]


def _write(kwargs: Mapping[str, Any], folder: Path) -> Path:
    """Write the rows of one data set: a file, or a folder with its parts and a card that names the subset."""
    folder.mkdir(parents=True)
    rows = _ROWS[kwargs["path"], kwargs.get("where", {}).get("ability")]
    if kwargs.get("val_part") == kwargs.get("part"):  # not given, or the same rows
        return jsonl(folder / "rows.jsonl", rows)
    files = ""
    for part, some in (("train", rows[:60]), (kwargs["val_part"], rows[60:])):
        jsonl(folder / f"{part}.jsonl", some)
        files += f"    - {{split: {part}, path: {part}.jsonl}}\n"
    subset = kwargs.get("subset", "default")
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {subset}\n  data_files:\n{files}---\n")
    return folder


def _problems(name: str) -> list[Any]:
    """Rows with other problems, to which 0 or 1 is the answer."""
    text = json.dumps(MATHS[name])
    numbered = (text.replace("7", str(i % 2)).replace("3+4", f"{i} mod 2") for i in range(80))
    return [row for rows in numbered for row in json.loads(rows)]


def _programs(name: str) -> list[Any]:
    """Rows with the same problem in other words."""
    row, _, _ = PROGRAMS[name]
    text = json.dumps(row)
    (task,) = (task for task in ("Write add.", "Print twice the input.") if task in text)
    return [json.loads(text.replace(task, f"{task} {i}")) for i in range(80)]


#: The rows of each data set, by its name on the hub and the ability that is taken.
_ROWS = {
    ("BytedTsinghua-SIA/DAPO-Math-17k", None): _problems("dapo_math_17k"),
    ("PRIME-RL/Eurus-2-RL-Data", "math"): _problems("eurus2_math"),
    ("PRIME-RL/Eurus-2-RL-Data", "code"): _programs("eurus2_code"),
    ("openai/gsm8k", None): _problems("gsm8k"),
    ("HuggingFaceH4/aime_2024", None): _problems("aime24"),
    ("math-ai/aime25", None): _problems("aime25"),
    ("AI-MO/aimo-validation-amc", None): _problems("amc"),
    ("HuggingFaceH4/MATH-500", None): _problems("math500"),
    ("KbsdJames/Omni-MATH", None): _problems("omni_math"),
    ("Hothan/OlympiadBench", None): _problems("olympiad_bench"),
    ("math-ai/minervamath", None): _problems("minerva"),
    ("TIGER-Lab/AceCode-87K", None): _programs("acecode"),
    ("KodCode/KodCode-V1", None): _programs("kodcode"),
}
