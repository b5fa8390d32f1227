"""Draws entries with reasoning-gym, and scores answers in a worker of the verifier pool.

Some scorers of reasoning-gym evaluate the answer as Python code, directly or through sympy. For safety, the
former may evaluate only literals, and the latter get only answers that are plain arithmetic.
"""

from __future__ import annotations

import ast
import json
import math
import re
from contextlib import chdir, redirect_stdout
from dataclasses import fields, replace
from functools import lru_cache
from importlib.metadata import version
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from reasoning_gym.algorithmic import binary_matrix, spiral_matrix, string_insertion
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import CURRICULA, DATASETS
from reasoning_gym.games import n_queens

from ecrl.envs.safe_calls import global_seed
from ecrl.errors import UsageError, unknown_name

#: The version whose scorers were reviewed for what they evaluate.
KNOWN_VERSION = "0.1.25"
#: Seeds of entries are below this.
SEEDS = 2**31 - 1000

# The scorers of these modules evaluate the answer, which may be a Python list.
for _module in (binary_matrix, n_queens, spiral_matrix, string_insertion):
    setattr(_module, "eval", ast.literal_eval)  # noqa: B010  (the name shadows the builtin there)
# The scorers of these tasks let sympy evaluate the answer. `Integral(…)` is not allowed: it would be a right
# answer to any integral.
_BY_SYMPY = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
_FUNCTIONS = "sqrt exp log ln sin cos tan cot sec csc asin acos atan sinh cosh tanh abs Abs pi"
_ARITHMETIC = re.compile(
    rf"(?:\s|[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/^(),]|\b(?:[A-Za-z]|{_FUNCTIONS.replace(' ', '|')})\b)*",
    re.ASCII,
)
# Comparisons with these are always false, so a distance from them passes or fails every bound.
_NO_NUMBER = re.compile(r"(?<![a-z])(nan|inf(inity)?)[ij]?(?![a-z])", re.IGNORECASE)
# The scorer of this task gives full marks to any text, because it compares `bool(answer)` of two strings.
_BY_EQUALITY = frozenset({"game_of_life_halting"})
# To make an entry, this task runs programs, some of which write files to the current folder.
_RUNS_PROGRAMS = frozenset({"codeio"})
# These tasks make their whole data set at once, or limit its size.
_SMALL = frozenset({"acre", "composite", "gsm_symbolic", "list_functions", "word_ladder"})
_SMALL_SIZE = 10


class Task(NamedTuple):
    """A task with its settings.

    Attributes:
        name: name in reasoning-gym.
        level: level of its curriculum, or None.
        settings: fields of its configuration, as JSON.
    """

    name: str
    level: int | None
    settings: str


@lru_cache(maxsize=64)
def dataset(task: Task, seed: int = 0) -> Any:
    """Return the task's data set; all environments of a process share it.

    Raises:
        UsageError: another version of reasoning-gym is installed, or a setting is unknown or refused.
    """
    if (found := version("reasoning-gym")) != KNOWN_VERSION:
        raise UsageError(
            f"reasoning-gym {found} is installed, whose scorers may execute what a policy writes. Only "
            f"{KNOWN_VERSION} was reviewed: pip install reasoning-gym=={KNOWN_VERSION}"
        )
    cls, config_cls = DATASETS[task.name]
    settings = json.loads(task.settings)
    known = {field.name for field in fields(config_cls)} - {"seed", "size"}
    for name in settings:
        if name not in known:
            raise unknown_name(f"setting of reasoning_gym/{task.name}", name, known)
    size = _SMALL_SIZE if task.name in _SMALL else 2**31
    if task.name == "composite":
        settings["datasets"] = _members(settings.get("datasets"))
    settings |= {"seed": seed, "size": size}
    try:
        config = config_cls(**settings) if task.level is None else replace(_at_level(task), **settings)
        return cls(config)
    except (AssertionError, ValueError, TypeError) as error:
        level = "" if task.level is None else f" level={task.level}"
        raise UsageError(f"reasoning_gym/{task.name}{level} refuses its settings: {error}.") from None


def draw(task: Task, seed: int) -> dict[str, Any]:
    """Return an entry: ``question``, ``answer`` (None for some tasks) and ``metadata``."""
    with global_seed(seed), redirect_stdout(StringIO()):  # one generator prints dots
        if task.name in _SMALL:
            entry: dict[str, Any] = dataset.__wrapped__(task, seed)[seed % _SMALL_SIZE]
        else:
            entry = dataset(task)[seed]
    # Take the next entry if the answer is an unsolved integral, which would be a right answer to any
    # integral, or is empty, which is what a policy without an answer writes.
    unsolved = "Integral(" in str(entry["answer"]) or entry["answer"] == ""
    return draw(task, (seed + 1) % SEEDS) if unsolved else entry


def runs_programs(task: Task) -> bool:
    """Tell whether drawing an entry runs programs; if so, call `draw_in_scratch`, in a worker."""
    members = json.loads(task.settings).get("datasets", []) if task.name == "composite" else []
    return not _RUNS_PROGRAMS.isdisjoint({task.name, *(str(member.get("name")) for member in members)})


def draw_in_scratch(task: Task, seed: int) -> dict[str, Any]:
    """Draw an entry in an empty temporary folder, which is deleted afterwards."""
    with TemporaryDirectory() as folder, chdir(folder):
        return draw(task, seed)


def judge(task: Task, entry: dict[str, Any], answer: str) -> float:
    """Score an answer with the task's own scorer. Call it in a worker.

    Returns:
        The score, in [0, 1]; 0 if the scorer raises.
    """
    if task.name == "composite":
        task = Task(entry["metadata"]["source_dataset"], None, "{}")
    if task.name in _BY_SYMPY and not _ARITHMETIC.fullmatch(answer):
        return 0.0
    if _NO_NUMBER.search(answer) and not _NO_NUMBER.search(str(entry["answer"])):
        return 0.0
    scorer: Any = ProceduralDataset if task.name in _BY_EQUALITY else type(dataset(task))
    try:
        score = float(scorer.score_answer(dataset(task), answer, entry))
    except Exception:  # scorers raise errors of any kind
        return 0.0
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


def _at_level(task: Task) -> Any:
    """Return the configuration of a level of the task's curriculum.

    Raises:
        UsageError: the task has no curriculum, or the level is too high.
    """
    if task.name not in CURRICULA:
        raise UsageError(f"reasoning_gym/{task.name} has no curriculum; leave `level` out.")
    curriculum: Any = CURRICULA[task.name]()
    top = max((len(a.levels) for a in curriculum.attributes.values()), default=1) - 1
    if task.level is None or task.level > top:
        raise UsageError(f"reasoning_gym/{task.name} has levels 0 to {top}; got level={task.level}.")
    curriculum.set_global_level(task.level)
    return curriculum.generate_configuration()


def _members(specs: Any) -> list[DatasetSpec]:
    """Read the setting ``datasets=[{name: …, weight: …, config: {…}}]`` of the composite task."""
    try:
        return [DatasetSpec(**{"weight": 1.0, "config": {}, **spec}) for spec in specs]
    except TypeError:
        raise UsageError(
            "reasoning_gym/composite needs datasets=[{name: TASK, weight: 1, config: {}}, …]; "
            f"got datasets={specs!r}."
        ) from None
