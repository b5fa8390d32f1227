"""A row of each published data set, as its card documents it."""

from __future__ import annotations

import json
from typing import Any

#: Rows of the mathematical ones.
MATHS: dict[str, list[dict[str, Any]]] = {
    "dapo_math_17k": [
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": "What is 3+4? The last line should be Answer: $Answer"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b"},
        }
    ],
    "eurus2_math": [
        {
            "data_source": "numina",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 3+4?"}],
            "ability": ability,
            "reward_model": {"ground_truth": truth, "style": "rule"},
        }
        for ability, truth in (("code", "{}"), ("math", "7"))
    ],
    "gsm8k": [{"question": "What is 3+4?", "answer": "3+4=<<3+4=7>>7\n#### 7"}],
    "math500": [
        {"problem": "What is 3+4?", "solution": "\\boxed{7}", "answer": "7", "subject": "Algebra", "level": 1}
    ],
    "aime24": [
        {"id": 60, "problem": "What is 3+4?", "solution": "…", "answer": "007", "url": "", "year": "2024"}
    ],
    "aime25": [{"problem": "What is 3+4?", "answer": "7", "id": "0"}],
    "amc": [{"id": 0, "problem": "What is 3+4?", "answer": 7.0, "url": ""}],
    "omni_math": [
        {"domain": ["A"], "difficulty": 8.0, "problem": "What is 3+4?", "solution": "", "answer": "7"}
    ],
    "olympiad_bench": [{"id": 1, "question": "What is 3+4?", "final_answer": ["$7$"], "unit": None}],
    "minerva": [{"question": "What is 3+4?", "solution": "", "answer": "7"}],
}

ADD = "def add(a, b):\n    return a + b"
#: A row of each one of programs, with a right and a wrong program.
PROGRAMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "kodcode": (
        {
            "question": "Write add.",
            "test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
            "test_info": [{"function_name": "add", "function_declaration": "def add(a, b):"}],
            "solution": ADD,
        },
        ADD,
        ADD.replace("+", "-"),
    ),
    "acecode": (
        {"question": "Write add.", "test_cases": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]},
        ADD,
        ADD.replace("+", "-"),
    ),
    "eurus2_code": (
        {
            "prompt": [{"role": "system", "content": "…"}, {"role": "user", "content": "Print twice the input."}],
            "ability": "code",
            "reward_model": {"ground_truth": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]}), "style": "rule"},
        },
        "print(2 * int(input()))",
        "print(int(input()))",
    ),
    "livecodebench": (
        {
            "question_content": "Print twice the input.",
            "starter_code": "",
            "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
            "private_test_cases": json.dumps([{"input": "4\n", "output": "8\n", "testtype": "stdin"}]),
            "metadata": "{}",
        },
        "print(2 * int(input()))",
        "print(2)",
    ),
    "humaneval_plus": (
        {
            "prompt": "def add(a, b):\n    \"\"\"Add.\"\"\"\n",
            "entry_point": "add",
            "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n",
        },
        ADD,
        ADD.replace("+", "-"),
    ),
    "mbpp_plus": (
        {"prompt": "Write add.", "code": ADD, "test": "assert add(1, 2) == 3\nassert add(2, 2) == 4\n"},
        ADD,
        ADD.replace("+", "-"),
    ),
}  # fmt: skip
