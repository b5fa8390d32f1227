"""Problems whose responses a language model grades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from ecrl.envs.arguments import check_integer, check_seconds, check_types
from ecrl.envs.base import Problem, Score
from ecrl.envs.datasets.cells import conversation, joined, read_cell
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.envs.judge.judge import Server, judge_of
from ecrl.envs.judge.rubric import PLAIN, WITH_REFERENCE, Rubric, read_rubric
from ecrl.errors import UsageError
from ecrl.runs.cache import cache_folder


class JudgeEnv(RowsEnv):
    """Answer a problem of a data set; a language model grades the response by a rubric.

    The model is asked at temperature 0 over an OpenAI-compatible server. Its score, from ``scale[0]`` to
    ``scale[1]``, becomes a reward from 0 to 1. Verdicts are kept in a file, so the same response to the same
    problem always earns the same, and costs one request. A response that stays without a verdict after all
    tries counts as failed: ``env.on_error``. An empty response earns 0.

    Args:
        url: address of the server, ``http://host:8000/v1``.
        model: name of the model that judges.
        rubric: a text with ``{response}``, and perhaps ``{problem}`` and ``{reference}``, or a file with one;
            None takes a short one.
        scale: the lowest and the highest score.
        verdict: how the reply ends: ``json`` (``{"score": 7}``), ``boxed`` (``\\boxed{7}``), or ``number``.
        problem_column: string or chat messages; ``prompt.0.content`` reaches into nested values.
        reference_column: the reference answer; None if there is none.
        api_key_env: name of the environment variable that holds the server's key.
        max_tokens: longest reply of the judge.
        timeout: seconds for one request.
        retries: requests after a failed one, with pauses that double.
        in_flight: most requests at once, of one process.
        cache: file of verdicts; None takes ``judge.sqlite`` in ``$ECRL_CACHE`` or ``~/.cache/ecrl``.
        **rows: which rows to take; see `RowsEnv`.

    Raises:
        UsageError: the rows cannot be read, an argument is wrong, or the server does not answer.
    """

    training_callback: ClassVar[str | None] = "ecrl.callbacks.judge_metrics.JudgeMetrics"

    def __init__(
        self,
        *,
        url: str | None = None,
        model: str | None = None,
        rubric: str | None = None,
        scale: Sequence[float] = (0.0, 10.0),
        verdict: Literal["json", "boxed", "number"] = "json",
        problem_column: str = "problem",
        reference_column: str | None = None,
        api_key_env: str | None = None,
        max_tokens: int = 1024,
        timeout: float = 60.0,
        retries: int = 4,
        in_flight: int = 32,
        cache: str | None = None,
        **rows: Any,
    ) -> None:
        check_types(JudgeEnv.__init__, locals())
        check_seconds("timeout", timeout)
        check_integer("max_tokens", max_tokens, 1, 1 << 20)
        check_integer("retries", retries, 0, 20)
        check_integer("in_flight", in_flight, 1, 4096)
        if not url or not model:
            raise UsageError("JudgeEnv needs url=http://HOST:PORT/v1 and model=NAME: env.kwargs.url=….")
        if len(scale) != 2 or not all(map(math.isfinite, scale)) or not scale[0] < scale[1]:
            raise UsageError(
                f"scale must be two numbers, the lower one first, as [0, 10]; got {list(scale)!r}."
            )
        text = read_rubric(rubric) if rubric else WITH_REFERENCE if reference_column else PLAIN
        self.rubric = Rubric(text, float(scale[0]), float(scale[1]), verdict)
        if self.rubric.needs_reference and reference_column is None:
            raise UsageError("rubric has {reference}, but there is no reference_column=NAME.")
        self.problem_column = problem_column
        self.reference_column = reference_column
        self.in_flight = in_flight
        file = Path(cache).expanduser() if cache else cache_folder() / "judge.sqlite"
        self._server = Server(
            _base(url), model, api_key_env, max_tokens, timeout, retries, in_flight, file.absolute()
        )
        super().__init__([problem_column, *filter(None, [reference_column])], **rows)
        _probe(self._server)

    def problem_of(self, row: Row) -> Problem:
        """Read the row's problem and its reference answer.

        Raises:
            ValueError: one of them cannot be read; names the column and the value found.
        """
        messages = read_cell(row, self.problem_column, conversation)
        reference = read_cell(row, self.reference_column, _reference) if self.reference_column else None
        return Problem(joined(messages), reference, messages=messages)

    async def score(self, problem: Problem, response: str) -> Score:
        """Ask the judge.

        Raises:
            JudgeError: it gave no verdict.
        """
        if not response.strip():
            return Score(0.0, {"score": self.rubric.low})
        messages = self.rubric.messages(problem.prompt, response, problem.answer or "")
        score = await judge_of(self._server).score(messages, self.rubric.score)
        return Score(self.rubric.reward(score), {"score": score})


@lru_cache
def _probe(server: Server) -> None:
    """Look once in a process whether a server answers."""
    server.probe()


def _base(url: str) -> str:
    """Return the address of the API; a server's address alone means its ``/v1``.

    Raises:
        UsageError: it is no address of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"url must be http://HOST:PORT/v1 or https://HOST/v1; got {url!r}.")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def _reference(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"a reference answer must be a text or a number; found {value!r:.80}")
    return str(value)
