"""What touches reasoning-gym itself: drawing entries, and scoring answers in a worker of the pool.

Some of its scorers evaluate the answer as Python, directly or through sympy. Those get literals instead
of Python, and arithmetic instead of any text that sympy would evaluate.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import fields, replace
from functools import lru_cache
from importlib.metadata import version
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from reasoning_gym.algorithmic import binary_matrix, spiral_matrix, string_insertion
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import CURRICULA, DATASETS
from reasoning_gym.games import n_queens

from ecrl.errors import UsageError, unknown_name

#: The version whose scorers were read for what they evaluate.
KNOWN_VERSION = "0.1.25"
#: Seeds of entries.
SEEDS = 2**31 - 1000

# These evaluate an answer that may be a Python list.
for _module in (binary_matrix, n_queens, spiral_matrix, string_insertion):
    setattr(_module, "eval", ast.literal_eval)  # noqa: B010  (the name shadows the builtin there)
# These let sympy evaluate the answer. `Integral(…)` is no arithmetic: it would answer any integral.
_BY_SYMPY = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
_FUNCTIONS = "sqrt exp log ln sin cos tan cot sec csc asin acos atan sinh cosh tanh abs Abs pi"
_ARITHMETIC = re.compile(
    rf"(?:\s|[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/^(),]|\b(?:[A-Za-z]|{_FUNCTIONS.replace(' ', '|')})\b)*",
    re.ASCII,
)
# A distance from one of these is below and above everything.
_NO_NUMBER = re.compile(r"(?<![a-z])(nan|inf(inity)?)[ij]?(?![a-z])", re.IGNORECASE)
# This one's own scorer gives full marks to any text: it compares `bool(answer)` of two texts.
_BY_EQUALITY = frozenset({"game_of_life_halting"})
# This one runs programs that come with it to make an entry, some of which write files where they are.
_RUNS_PROGRAMS = frozenset({"codeio"})
# These lay out a whole data set when they are made, or none larger than some size.
_SMALL = frozenset({"acre", "composite", "gsm_symbolic", "list_functions", "word_ladder"})
_SMALL_SIZE = 10


class Task(NamedTuple):
    """A task with its settings.

    Attributes:
        name: in reasoning-gym.
        level: of its curriculum, or None.
        settings: fields of its configuration, as JSON.
    """

    name: str
    level: int | None
    settings: str


@lru_cache(maxsize=64)
def dataset(task: Task, seed: int = 0) -> Any:
    """Return the task's data set; all environments of a process share it.

    Raises:
        UsageError: another version of reasoning-gym; unknown or refused settings.
    """
    if (found := version("reasoning-gym")) != KNOWN_VERSION:
        raise UsageError(
            f"reasoning-gym {found} is installed, whose scorers may evaluate what a policy writes; those "
            f"of {KNOWN_VERSION} are known: pip install reasoning-gym=={KNOWN_VERSION}"
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
    with _seeded(seed), redirect_stdout(StringIO()):  # one of them prints dots
        if task.name in _SMALL:
            entry: dict[str, Any] = dataset.__wrapped__(task, seed)[seed % _SMALL_SIZE]
        else:
            entry = dataset(task)[seed]
    # Some integrals have no better answer than themselves, which would do for every other one, too; and an
    # empty answer is what a policy gives that has none.
    unsolved = "Integral(" in str(entry["answer"]) or entry["answer"] == ""
    return draw(task, (seed + 1) % SEEDS) if unsolved else entry


def runs_programs(task: Task) -> bool:
    """Whether drawing an entry runs programs, so that it is to be done by `draw_in_scratch`, in a worker."""
    members = json.loads(task.settings).get("datasets", []) if task.name == "composite" else []
    return not _RUNS_PROGRAMS.isdisjoint({task.name, *(str(member.get("name")) for member in members)})


def draw_in_scratch(task: Task, seed: int) -> dict[str, Any]:
    """Draw an entry in an empty folder that vanishes with what was written there."""
    with TemporaryDirectory() as folder, chdir(folder):
        return draw(task, seed)


def judge(task: Task, entry: dict[str, Any], answer: str) -> float:
    """Score an answer by the task's own scorer; runs in a worker.

    Returns:
        The score, within [0, 1]; 0 where the scorer raises.
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
    except Exception:  # whatever a scorer makes of a text
        return 0.0
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


def _at_level(task: Task) -> Any:
    """Return the configuration of a curriculum's level.

    Raises:
        UsageError: the task has no curriculum, or none so high.
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
    """Read ``datasets=[{name: …, weight: …, config: {…}}]`` of the composite task."""
    try:
        return [DatasetSpec(**{"weight": 1.0, "config": {}, **spec}) for spec in specs]
    except TypeError:
        raise UsageError(
            "reasoning_gym/composite needs datasets=[{name: TASK, weight: 1, config: {}}, …]; "
            f"got datasets={specs!r}."
        ) from None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random states, which some generators draw from, and put them back afterwards."""
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
