"""The unit tests of a programming problem, and how each kind of test judges a program."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecrl.envs.code.comparison import is_true, same_text, same_value
from ecrl.envs.sandbox import Limits, Sandbox, Status

_FOLDER = Path(__file__).parent
_SERVER, _STAND_INS, _JUDGING = (
    (_FOLDER / name).read_text(encoding="utf-8") for name in ("program_server.py", "stand_ins.py", "judge.py")
)
_JUDGE = _SERVER + _STAND_INS + re.sub(r"^from ecrl.*$", "", _JUDGING, flags=re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """How many tests a program passed.

    Attributes:
        passed: number of tests that it passed.
        total: number of tests.
        status: ``ok``, or how the first run that did not end well ended.
    """

    passed: int
    total: int
    status: Status


@dataclass(frozen=True)
class StdinTests:
    """Inputs for stdin and the outputs expected on stdout; the program runs once for each."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Run the program on each input; if ``stop``, only up to the first failure."""
        program, passed = "\n\n".join(sources), 0
        status: Status = "ok"
        for stdin, wanted in zip(self.inputs, self.outputs, strict=True):
            outcome = sandbox.run(program, stdin, limits=limits)
            passes = outcome.status == "ok" and same_text(outcome.stdout, wanted)
            passed += passes
            status = outcome.status if status == "ok" else status
            if stop and not passes:
                break
        return Verdict(passed, len(self.inputs), status)


@dataclass(frozen=True)
class Call:
    """A call of one of the program's functions with plain values, and the value that it must return.

    Attributes:
        name: the function, or a method of the program's class ``Solution``.
        args: positional arguments, encoded by `program_server.encode`.
        kwargs: keyword arguments, encoded likewise.
        wanted: the expected value, encoded likewise; not used if ``truth`` is given.
        truth: whether the result must be true or false as a condition; its value does not matter then.
    """

    name: str
    args: Any
    kwargs: Any
    wanted: Any
    truth: bool | None = None


@dataclass(frozen=True)
class CallTests:
    """Calls of functions; all of them are made in one sandbox run.

    Attributes:
        calls: the calls, in order.
        loose: let tuples equal lists, and floats be equal within 1e-6. Expected values from JSON need this.
    """

    calls: tuple[Call, ...]
    loose: bool

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Make all calls in the sandbox and compare outside, so that no expected value enters the sandbox."""
        program = f"{_SERVER}\nserve(*{list(sources)!r})\n"
        requests = [{"name": c.name, "args": c.args, "kwargs": c.kwargs} for c in self.calls]
        outcome = sandbox.run(
            program,
            "".join(json.dumps(request) + "\n" for request in requests),
            limits=limits,
        )
        answers = outcome.stdout.split("\n")[: len(self.calls)]
        passed = sum(self._passes(call, answer) for call, answer in zip(self.calls, answers, strict=False))
        return Verdict(passed, len(self.calls), outcome.status)

    def _passes(self, call: Call, answer: str) -> bool:
        try:
            value = json.loads(answer)["value"]
            if call.truth is not None:
                return is_true(value) == call.truth
            return same_value(value, call.wanted, self.loose)
        # The program may have written anything instead of an answer.
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
            return False


@dataclass(frozen=True)
class CodeTests:
    """Test code. It runs in one sandbox and calls the program in another.

    Attributes:
        source: the code.
        entry: the function that the code tests as ``candidate``, if the row names it.
    """

    source: str
    entry: str | None

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Run the test code against the program; it counts as one test."""
        outcome = sandbox.converse(
            f"{_JUDGE}\njudge({self.source!r}, {self.entry!r})\n",
            f"{_SERVER}\nserve(*{list(sources)!r})\n",
            limits=limits,
        )
        return Verdict(int(outcome.status == "ok"), 1, outcome.status)


Tests = StdinTests | CallTests | CodeTests
