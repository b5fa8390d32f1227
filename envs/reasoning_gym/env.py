"""The tasks of reasoning-gym, each drawn by its own generator and graded by its own scorer.

https://github.com/open-thought/reasoning-gym. The package is an extra and is imported when the first of
its tasks is made.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any, ClassVar

import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Score, Split, check_integer
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError, shared_pool
from ecrl.errors import EcrlError, UsageError, unknown_name

#: Names of the tasks, here so that registering them imports nothing.
_NAMES = """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
    binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic
    codeio coin_flip color_cube_rotation complex_arithmetic composite count_bits count_primes countdown
    course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery
    family_relationships figlet_font fraction_simplification futoshiki game_of_life game_of_life_halting
    gcd graph_color group_anagrams gsm_symbolic intermediate_integration isomorphic_strings jugs
    kakurasu knight_swap knights_knaves largest_island lcm leg_counting letter_counting letter_jumble
    list_functions mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid n_queens
    needle_haystack number_filtering number_format number_sequence number_sorting palindrome_generation
    palindrome_partitioning path_star polynomial_equations polynomial_multiplication pool_matrix
    power_function prime_factorization products propositional_logic puzzle24 quantum_lock ransom_note
    rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour self_reference
    sentence_reordering shortest_path simple_equations simple_geometry simple_integration sokoban
    spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis
    sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal
    word_sorting zebra_puzzles
"""
TASKS = tuple(_NAMES.split())

_INSTALL = "pip install 'ecrl[reasoning-gym]'"
_OPEN, _CLOSE = "<answer>", "</answer>"
_ASK = f"\nWrite the final answer as {_OPEN}answer{_CLOSE}.\n"
_SECONDS = 4.0  # that a scorer may take, or a draw
_DRAWS = 20  # that may fail in a row
_MAX_ANSWER = 100_000


class ReasoningGymEnv(ReasoningEnv):
    """A task of reasoning-gym, graded by its own scorer.

    The answer is what stands between the last ``<answer>`` and ``</answer>``, or the whole response where
    there are none; an empty one earns nothing. The reward is 1 for the scorer's full marks; with
    ``exact=False`` its degrees, of which many tasks give some to any text.

    Args:
        task: its name in reasoning-gym.
        level: of the task's own curriculum, from 0; None takes the task's default settings.
        exact: give 1 for full marks and 0 for anything less, or else what the scorer gives.
        split: ``train`` or ``val``.
        **settings: fields of the task's configuration; they win over the level's.

    Raises:
        UsageError: reasoning-gym is not installed; an unknown task, setting or level; settings that the task
            refuses.
    """

    concurrent: ClassVar[bool] = True

    def __init__(
        self,
        *,
        task: str,
        level: int | None = None,
        exact: bool = True,
        split: Split = "train",
        **settings: Any,
    ) -> None:
        super().__init__(split=split)
        if task not in TASKS:
            raise unknown_name("reasoning-gym task", task, TASKS)
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UsageError(f"reasoning_gym/{task} needs the package reasoning-gym: {_INSTALL}")
        if level is not None:
            check_integer("level", level, 0, 1000)
        try:
            text = json.dumps(settings, sort_keys=True)
        except TypeError as error:
            raise UsageError(f"reasoning_gym/{task}: settings must be plain data; {error}.") from None
        from ecrl.envs.reasoning_gym.tasks import Task, dataset, runs_programs

        self.task = Task(task, level, text)
        self.exact = exact
        dataset(self.task)
        self._runs_programs = runs_programs(self.task)

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw an entry of the task by a seed of its own."""
        from ecrl.envs.reasoning_gym.tasks import SEEDS

        entry = self._entry(int(rng.integers(SEEDS)))
        return Problem(f"{entry['question'].rstrip()}{_ASK}", entry)

    def score(self, problem: Problem, response: str) -> Score:
        """Give what the task's scorer gives, between 0 and 1; 0 where it raises, hangs or dies."""
        answer = extract(response)
        if not answer or len(answer) > _MAX_ANSWER:
            return Score(0.0, {"exact": 0.0, "failed": 0.0})
        try:
            reward = self._judge(problem.answer, answer)
        except (VerifierTimeoutError, VerifierCrashError):
            return Score(0.0, {"exact": 0.0, "failed": 1.0}, answer)
        full = float(reward == 1.0)
        return Score(full if self.exact else reward, {"exact": full, "failed": 0.0}, answer)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the entry's answer; the wrong one is that of another entry.

        Raises:
            NotImplementedError: the task gives no answer, only a way to score one.
        """
        answer = problem.answer["answer"]
        if not correct:
            answer = self.sample_problem(rng).answer["answer"]
        if answer is None:
            raise NotImplementedError(f"reasoning_gym/{self.task.name} gives no answers of its own.")
        return f"{_OPEN}{answer}{_CLOSE}"

    def _entry(self, seed: int) -> dict[str, Any]:
        """Draw the entry of a seed, or of the next one that has any: some generators give up on a few."""
        why = ""
        for following in range(seed, seed + _DRAWS):
            try:
                return self._draw_entry(following)
            except Exception as error:  # whatever a generator raises
                why = f"{type(error).__name__}: {error}"
        raise EcrlError(
            f"reasoning_gym/{self.task.name}: {_DRAWS} entries in a row could not be drawn ({why})."
        )

    def _draw_entry(self, seed: int) -> dict[str, Any]:
        from ecrl.envs.reasoning_gym.tasks import draw, draw_in_scratch

        if not self._runs_programs:
            return draw(self.task, seed)
        # In a worker, where programs may write, hang and die.
        entry: dict[str, Any] = shared_pool().run(draw_in_scratch, self.task, seed, timeout=_SECONDS)
        return entry

    def _judge(self, entry: dict[str, Any], answer: str) -> float:
        from ecrl.envs.reasoning_gym.tasks import judge

        reward: float = shared_pool().run(judge, self.task, entry, answer, timeout=_SECONDS)
        return reward


def extract(response: str) -> str:
    """Return the answer of a response, without the white space around it."""
    _, found, rest = response.rpartition(_OPEN)
    inner, closed, _ = rest.partition(_CLOSE)
    return (inner if found and closed else response).strip()
