"""Make a small chat model and data files as published sets have them, to try a real run without a download.

    python examples/small_chat_model.py FOLDER
    ecrl warmup model.path=FOLDER/model env=dapo_math_17k env.kwargs.path=FOLDER/dapo_math_17k.jsonl \\
        warmup.steps=300 warmup.batch=32 output=FOLDER/base
    ecrl train model.path=FOLDER/base env=dapo_math_17k env.kwargs.path=FOLDER/dapo_math_17k.jsonl \\
        rollout.max_new_tokens=64 update.lr=2e-4

docs/models.md has a longer warm-up and what the run then learns.

``FOLDER/model`` is a random Qwen2 with a byte-pair tokenizer and a chat template of Qwen's kind. The files
hold sums of our own, in the columns of DAPO-Math-17k, GSM8K, MATH-500, AIME and KodCode. Most prompts are
short, some are stories, and one of DAPO's is longer than the model's window.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

WINDOW = 2048  # positions of the model
ENDS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
#: A system message of its own where the conversation has none, and a switch for thinking, as Qwen's have.
TEMPLATE = """\
{%- if messages[0].role != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n{problem}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
NAMES = "Ana", "Ben", "Chen", "Dara", "Eli", "Farah", "Goran", "Hana"
THINGS = "apples", "books", "coins", "shells", "stamps", "stones", "tickets", "pencils"

Row = dict[str, Any]


def plain(rng: random.Random) -> tuple[str, int]:
    """Draw a sum of one line and its answer."""
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    sign, answer = rng.choice([("+", a + b), ("-", a - b)])
    return rng.choice(["What is ${} {} {}$?", "Compute ${} {} {}$.", "Find ${} {} {}$."]).format(
        a, sign, b
    ), answer


def story(rng: random.Random, days: int) -> tuple[str, int]:
    """Draw a story of so many days, of which only the first and the last count."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    between = "".join(
        f" On day {day}, {rng.choice(NAMES)} finds {rng.randint(2, 99)} {rng.choice(THINGS)} and keeps them."
        for day in range(2, days)
    )
    text = f"{name} has {a} {thing}.{between} Then {name} finds {b} {thing} more."
    return f"{text} How many {thing} does {name} have?", a + b


def any_problem(rng: random.Random) -> tuple[str, int]:
    """Draw a sum, or one time in ten a story of 2 to 40 days."""
    return story(rng, rng.randint(2, 40)) if rng.random() < 0.1 else plain(rng)


def dapo(rng: random.Random, number: int) -> Row:
    """Make a row of DAPO-Math-17k; the last one is longer than the window."""
    problem, answer = story(rng, 400) if number == 1023 else any_problem(rng)
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": DAPO.format(problem=problem)}],
        "ability": "MATH",
        "reward_model": {"ground_truth": str(answer), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"{rng.getrandbits(64):016x}"},
    }


def gsm8k(rng: random.Random, number: int) -> Row:
    """Make a row of GSM8K: a story with its worked solution."""
    problem, answer = story(rng, rng.randint(2, 6))
    return {"question": problem, "answer": f"They have {answer} in all.\n#### {answer}"}


def math500(rng: random.Random, number: int) -> Row:
    """Make a row of MATH-500; answers are LaTeX."""
    a, b = rng.randint(1, 9), rng.randint(2, 9)
    return {
        "problem": rf"Write ${a} \div {b}$ as a fraction. Show \emph{{all}} steps.",
        "solution": rf"The answer is $\boxed{{\frac{{{a}}}{{{b}}}}}$.",
        "answer": rf"\frac{{{a}}}{{{b}}}",
        "subject": "Prealgebra",
        "level": 1 + number % 5,
        "unique_id": f"test/prealgebra/{number}.json",
    }


def aime(rng: random.Random, number: int) -> Row:
    """Make a row of AIME; answers have three digits."""
    problem, answer = plain(rng)
    return {"id": number, "problem": problem, "solution": "", "answer": f"{abs(answer):03d}", "year": "2024"}


def kodcode(rng: random.Random, number: int) -> Row:
    """Make a row of KodCode: a function with its tests."""
    k = rng.randint(2, 99)
    return {
        "question": f"Write a function `shift(n)` that returns n plus {k}.",
        "solution": f"def shift(n):\n    return n + {k}",
        "test": f"from solution import shift\n\ndef test_shift():\n    assert shift(1) == {k + 1}\n",
        "test_info": [{"function_name": "shift", "function_declaration": "def shift(n):"}],
        "question_id": f"ours_{number}",
    }


FILES: dict[str, tuple[Callable[[random.Random, int], Row], int]] = {
    "dapo_math_17k": (dapo, 1024),
    "gsm8k": (gsm8k, 256),
    "math500": (math500, 64),
    "aime24": (aime, 30),
    "kodcode": (kodcode, 64),
}


def write_data(folder: Path) -> None:
    """Write a JSONL file for each data set; the same ones every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, count) in FILES.items():
        rng = random.Random(name)
        lines = [json.dumps(make(rng, number)) + "\n" for number in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def texts() -> Iterator[str]:
    """Yield the text that the tokenizer learns from: prompts of each set and worked answers."""
    rng = random.Random(0)
    for number in range(400):
        for make, _ in FILES.values():
            yield json.dumps(make(rng, 0), ensure_ascii=False)
        yield f"system\nYou are a helpful assistant.user\nassistant\nThe answer is \\boxed{{{number}}}."
        yield DAPO.format(problem=any_problem(rng)[0])


def make_tokenizer() -> Qwen2Tokenizer:
    """Train a byte-pair tokenizer of 1,024 tokens; digits are tokens of their own, as in Qwen's."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1024 - len(ENDS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts(), trainer)
    learnt = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        unk_token=None,  # type: ignore[arg-type]
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_model(folder: Path, hidden_size: int = 64, layers: int = 2) -> None:
    """Write a random Qwen2 with this tokenizer, in HF format; the same one every time."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=hidden_size,
                intermediate_size=4 * hidden_size,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=WINDOW,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                dtype="float32",
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write model and data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder that gets model and data")
    folder = parser.parse_args().folder
    write_model(folder / "model")
    write_data(folder)
    print(f"{folder / 'model'}, and beside it " + ", ".join(f"{name}.jsonl" for name in FILES))


if __name__ == "__main__":
    main()
