"""The tests of a programming problem: how rows spell them, and how a program is held against them."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ecrl.envs.sandbox as sandboxes
from ecrl.envs.sandbox import Sandbox, Status
from ecrl.envs.sandbox.process import Limits
from ecrl.envs.sandbox.remote import encode

_FOLDER = Path(sandboxes.__file__).parent
_SERVER = (_FOLDER / "remote.py").read_text(encoding="utf-8")
_TESTING, _JUDGING = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("testing.py", "judge.py"))
_JUDGE = _SERVER + _TESTING + re.sub(r"^from ecrl.*$", "", _JUDGING, flags=re.MULTILINE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Verdict:
    """How a program did.

    Attributes:
        passed: how many tests it passed.
        total: how many there are.
        status: the worst that befell a run: ``ok``, or why a program ended early.
    """

    passed: int
    total: int
    status: Status


@dataclass(frozen=True)
class StdinTests:
    """Texts in, texts out; one sandbox run for each."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Run the program on each input; ``stop`` at the first that fails."""
        program, passed = "\n\n".join(sources), 0
        status: Status = "ok"
        for stdin, wanted in zip(self.inputs, self.outputs, strict=True):
            outcome = sandbox.run(program, stdin, time_limit=limits.seconds, memory_limit=limits.memory)
            held = outcome.status == "ok" and same_text(outcome.stdout, wanted)
            passed += held
            status = outcome.status if status == "ok" else status
            if stop and not held:
                break
        return Verdict(passed, len(self.inputs), status)


@dataclass(frozen=True)
class Call:
    """A call of one of the program's functions with plain values, and what it has to return.

    Attributes:
        name: the function's, or that of a method of the program's class ``Solution``.
        args: encoded by `encode`.
        kwargs: likewise.
        wanted: likewise; None with ``truth``.
        truth: the result must only be true (or false) as a condition.
    """

    name: str
    args: Any
    kwargs: Any
    wanted: Any
    truth: bool | None = None


@dataclass(frozen=True)
class CallTests:
    """Calls; all of them in one sandbox run.

    Attributes:
        calls: in their order.
        loose: as expected values that came from JSON need it: tuples count as lists, and floats as equal
            within 1e-6.
    """

    calls: tuple[Call, ...]
    loose: bool

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Make all calls inside, compare outside: what is wanted never goes in."""
        program = f"{_SERVER}\nserve(*{list(sources)!r})\n"
        requests = [{"name": c.name, "args": c.args, "kwargs": c.kwargs} for c in self.calls]
        outcome = sandbox.run(
            program,
            "".join(json.dumps(request) + "\n" for request in requests),
            time_limit=limits.seconds,
            memory_limit=limits.memory,
        )
        answers = outcome.stdout.split("\n")[: len(self.calls)]
        passed = sum(self._held(call, answer) for call, answer in zip(self.calls, answers, strict=False))
        return Verdict(passed, len(self.calls), outcome.status)

    def _held(self, call: Call, answer: str) -> bool:
        try:
            value = json.loads(answer)["value"]
            if call.truth is not None:
                return _is_true(value) == call.truth
            return same_value(value, call.wanted, self.loose)
        # Whatever the program wrote instead of an answer.
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
            return False


@dataclass(frozen=True)
class CodeTests:
    """Test code of any form. It runs in a sandbox of its own and calls the program in another one."""

    source: str
    entry: str | None

    def judge(self, sandbox: Sandbox, sources: Sequence[str], limits: Limits, stop: bool) -> Verdict:
        """Let the test code speak with the program; it holds as a whole or not."""
        outcome = sandbox.converse(
            f"{_JUDGE}\njudge({self.source!r}, {self.entry!r})\n",
            f"{_SERVER}\nserve(*{list(sources)!r})\n",
            time_limit=limits.seconds,
            memory_limit=limits.memory,
        )
        return Verdict(int(outcome.status == "ok"), 1, outcome.status)


Tests = StdinTests | CallTests | CodeTests


def same_text(got: str, wanted: str, tolerance: float = 1e-6) -> bool:
    """Compare outputs line by line and word by word.

    White space at the ends and empty lines at the end do not count. Where a decimal number with a point is
    wanted, any number within ``tolerance``, relative or absolute, is as good.
    """
    lines = [[line.split() for line in text.rstrip().split("\n")] for text in (got, wanted)]
    if list(map(len, lines[0])) != list(map(len, lines[1])):
        return False
    pairs = (pair for a, b in zip(*lines, strict=True) for pair in zip(a, b, strict=True))
    return all(a == b or _near(a, b, tolerance) for a, b in pairs)


def _near(got: str, wanted: str, tolerance: float) -> bool:
    if "." not in wanted or not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    return math.isclose(float(got), float(wanted), rel_tol=tolerance, abs_tol=tolerance)


def same_value(got: Any, wanted: Any, loose: bool) -> bool:
    """Compare two encoded values as ``==`` does; neither is decoded.

    ``got`` is the program's word. Sets and dictionaries made of it could be chosen to collide, and then
    take minutes; sorted lists cannot.
    """
    a, b = _number(got), _number(wanted)
    if a is not None and b is not None:
        if loose and isinstance(b, float):
            return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
        return a == b
    if not (isinstance(got, list) and isinstance(wanted, list)):
        return type(got) is type(wanted) and bool(got == wanted)
    (tag, items), (wanted_tag, wanted_items) = got, wanted
    if loose:
        tag, wanted_tag = ("list" if t == "tuple" else t for t in (tag, wanted_tag))
    if tag != wanted_tag or tag == "object":
        return False
    if tag in ("bytes", "complex"):
        return bool(items == wanted_items)
    if tag in ("set", "dict"):
        items, wanted_items = sorted(items, key=_key), sorted(wanted_items, key=_key)
    if tag == "dict":
        items, wanted_items = ([["list", pair] for pair in x] for x in (items, wanted_items))
    return len(items) == len(wanted_items) and all(
        same_value(x, y, loose) for x, y in zip(items, wanted_items, strict=True)
    )


def _number(value: Any) -> int | float | None:
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, list) and value[0] == "int":
        return int(value[1], 16)
    return None


def _key(item: Any) -> str:
    """What sets and dictionaries are sorted by: equal numbers alike."""
    number = _number(item)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int):
        return hex(number)
    return json.dumps(item)


def _is_true(value: Any) -> bool:
    number = _number(value)
    if number is not None:
        return bool(number)
    if isinstance(value, list):
        return value[0] == "object" or bool(value[1])
    return bool(value)


def split_asserts(tree: ast.Module) -> CallTests | None:
    """Read test code that is no more than ``assert f(<literals>) == <literal>``, line after line.

    Either side may come first; ``assert f(…)`` and ``assert not f(…)`` will do too. Anything else gives
    None: it has to be run.
    """
    try:
        calls = tuple(map(_split, tree.body))
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return CallTests(calls, loose=False) if calls else None


def _split(statement: ast.stmt) -> Call:
    """Take one assert apart.

    Raises:
        ValueError: it is not of that form.
    """
    match statement:
        case ast.Assert(ast.Compare(left, [ast.Eq()], [right])):
            if isinstance(left, ast.Call) and not _is_literal(left):
                return _call(left, encode(ast.literal_eval(right)))
            if isinstance(right, ast.Call):
                return _call(right, encode(ast.literal_eval(left)))
        case ast.Assert(ast.UnaryOp(ast.Not(), ast.Call() as call)):
            return _call(call, None, truth=False)
        case ast.Assert(ast.Call() as call):
            return _call(call, None, truth=True)
    raise ValueError("not a call beside a literal")


def _is_literal(node: ast.expr) -> bool:
    """`set()` is a call to the parser and a literal to `literal_eval`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "set"
        and not node.args
    )


def _call(node: ast.Call, wanted: Any, truth: bool | None = None) -> Call:
    if not isinstance(node.func, ast.Name):
        raise ValueError("not a plain function")
    args = [ast.literal_eval(arg) for arg in node.args]
    kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    if None in kwargs:
        raise ValueError("not plain arguments")
    return Call(node.func.id, encode(args), encode(kwargs), wanted, truth)
