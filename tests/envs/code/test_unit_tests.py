"""Judging programs: what counts as equal, right programs, and programs that would cheat."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from ecrl.envs.code.comparison import same_text, same_value
from ecrl.envs.code.program_server import decode, encode
from ecrl.envs.code.unit_test_parsing import read_tests
from ecrl.envs.code.unit_tests import CodeTests, Verdict
from ecrl.envs.sandbox import Limits, Sandbox, make_sandbox
from tests.support.marks import slow_unless
from tests.support.sandboxes import needs_bwrap

LIMITS = Limits(2.0, 128)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return make_sandbox()


def judge(sandbox: Sandbox, tests: Any, program: str, entry: str | None = None, stop: bool = True) -> Verdict:
    return read_tests(tests, entry).judge(sandbox, [program], LIMITS, stop)


def passes(*args: Any, **kwargs: Any) -> bool:
    verdict = judge(*args, **kwargs)
    return verdict.passed == verdict.total


# What counts as equal


@pytest.mark.parametrize(
    ("got", "wanted", "equal"),
    [
        ("3\n", "3", True),
        ("3 4 \n5\n\n", "3 4\n5", True),
        ("3  4", "3 4", True),
        ("3\n4", "3 4", False),
        ("\n3", "3", False),
        ("", "", True),
        ("", "3", False),
        ("3 4", "3", False),
        ("03", "3", False),
        ("3.0", "3", False),  # a whole number is wanted
        ("3", "3.0", True),
        ("0.3333333", "0.33333333333", True),
        ("0.333", "0.33333333333", False),
        ("1e-9", "0.0", True),
        ("inf", "1.5", False),
        ("nan", "nan.", False),
        ("1_0.0", "10.0", False),
        ("YES", "Yes", False),
    ],
)
def test_same_text(got: str, wanted: str, equal: bool) -> None:
    assert same_text(got, wanted) == equal


VALUES = [
    None, True, False, 0, 1, -1, 10**5000, 1.5, float("inf"), "", "a", "\ud800", b"x", 1j, [], [1, [2]], (), (1,), {},
    {"a": [1, (2,)], 3: None}, set(), {1, 2, "x"}, {(1, 2), (3,)}, [None], {1: {2: {3: {}}}},
]  # fmt: skip


def test_values_cross_the_border() -> None:
    for value in VALUES:
        data = json.loads(json.dumps(encode(value)))
        assert decode(data, None) == value and type(decode(data, None)) is type(value)


def test_same_value_is_equality() -> None:
    for a in VALUES:
        for b in [*VALUES, 1.0, 0.0, {3: None, "a": [1, (2,)]}, {2, 1, "x"}, {1.0: {2: {3: {}}}}]:
            got, wanted = (json.loads(json.dumps(encode(x))) for x in (a, b))
            assert same_value(got, wanted, loose=False) == (a == b), (a, b)


def test_loose_equality_is_for_values_from_json() -> None:
    def same(a: Any, b: Any, loose: bool) -> bool:
        return same_value(encode(a), encode(b), loose)

    assert same((1, [2]), [1, [2]], True) and not same((1, [2]), [1, [2]], False)
    assert same(0.1 + 0.2, 0.3, True) and not same(0.1 + 0.2, 0.3, False)
    assert not same(0.31, 0.3, True)
    assert not same(3.0000001, 3, True), "a whole number is wanted"
    assert not same(float("nan"), 1.0, True)
    assert not same([1], [1, 1], True) and not same({1}, [1], True)


def test_objects_equal_nothing() -> None:
    thing = encode(object())
    assert not same_value(thing, thing, loose=True)


# Verdicts


STDIN = {"inputs": ["1\n", "5\n"], "outputs": ["2\n", "6\n"]}
ASSERTS = ["assert f(1) == 2", "assert f(5) == 6"]
CODE = "def check(candidate):\n    for x in (1, 5):\n        assert candidate(x) == x + 1\n"
RIGHT = "def f(x): return x + 1\nif __name__ == '__main__': print(f(int(input())))"
FORMS: dict[str, tuple[Any, str | None]] = {
    "stdin": (STDIN, None),
    "asserts": (ASSERTS, None),
    "code": (CODE, "f"),
}


@needs_bwrap
@pytest.mark.parametrize(("tests", "entry"), FORMS.values(), ids=list(FORMS))
def test_right_programs_pass(sandbox: Sandbox, tests: Any, entry: str | None) -> None:
    assert passes(sandbox, tests, RIGHT, entry)
    assert passes(sandbox, tests, "import sys\nprint('x', file=sys.stderr)\n" + RIGHT, entry)
    assert not passes(sandbox, tests, RIGHT.replace("+ 1", "+ (x < 3)"), entry)


CHEATS = {
    "nothing": "",
    "text": "the answer is 2",
    "exit": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef f(x): os._exit(0)",
    "system exit": "raise SystemExit(0)",
    "system exit in the call": "def f(x): raise SystemExit(0)",
    "an exception": "def f(x): raise AssertionError",
    "stop iteration": "def f(x): raise StopIteration",
    "keyboard": "def f(x): raise KeyboardInterrupt",
    "loop": "while True: pass",
    "loop in the call": "def f(x):\n    while True: pass",
    "kill the parent": "import os\nfor p in (1, os.getppid(), -1, 0): os.kill(p, 9)",
    "one equal to all": (
        "class All:\n"
        "    __eq__ = __contains__ = lambda s, o: True\n"
        "    __ne__ = lambda s, o: False\n"
        "    __hash__ = lambda s: 0\n"
        "    __str__ = __repr__ = lambda s: '2'\n"
        "def f(x): return All()"
    ),
    "an int equal to all": (
        "class All(int):\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 0\n"
        "    __index__ = lambda s: 2\ndef f(x): return All(9)"
    ),
    "patched builtins": (
        "import builtins, json, sys\n"
        "builtins.AssertionError = type('E', (BaseException,), {})\n"
        "for name in ('all', 'any', 'isinstance', 'sorted', 'len', 'abs', 'bool', 'zip'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\n"
        "def f(x): return True"
    ),
    "patched json": (
        "import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\njson.loads = lambda *a: True\n"
        "def f(x): return 9"
    ),
    "patched server": (
        "import sys\nmain = sys.modules['__main__']\nmain.encode = lambda *a: True\n"
        "main._Program.answer = lambda *a: {'value': True}\ndef f(x): return 9"
    ),
    "forged answers": (
        "import os\nfor fd in range(1, 20):\n    try:\n        os.write(fd, b'{\"value\": true}\\n' * 9)\n"
        "    except OSError: pass\nos._exit(0)"
    ),
    "garbage answers": (
        "import os\nfor fd in range(1, 20):\n    try: os.write(fd, b'[[\\x00\\xff' + b'[' * 99999 + b'\\n')\n"
        "    except OSError: pass\ndef f(x): return 9"
    ),
    "flood": "import os\nwhile True:\n    for fd in range(1, 20):\n        try: os.write(fd, b'x' * 4096)\n        except OSError: pass",
    "search the memory": (
        "import gc, sys\n"
        "found = [o for o in gc.get_objects() if isinstance(o, (tuple, list)) and 6 in o]\n"
        "frame = sys._getframe()\nwhile frame: found.append(frame.f_locals); frame = frame.f_back\n"
        "def f(x): return found"
    ),
    "read the tests": (
        "import glob\ntexts = []\nfor path in glob.glob('/**', recursive=True)[:20000] + glob.glob('/proc/*/*'):\n"
        "    if path.startswith('/usr'): continue\n"
        "    try: texts.append(open(path).read(9999))\n    except OSError: pass\n    except ValueError: pass\n"
        "hit = [t for t in texts if 'x + 1' in t and 'glob' not in t]\n"
        "def f(x): return 6 if hit else 0\nprint(f(0))"
    ),
    "overwrite the checker": (
        "import os, sys\n"
        "for folder in {*sys.path, '/tmp', '/usr/lib/python3', os.path.dirname(os.__file__)}:\n"
        "    for name in ('pytest.py', 'numpy.py', 'json.py', 'solution.py', 'conftest.py', 'sitecustomize.py'):\n"
        "        try: open(f'{folder}/{name}', 'w').write('import os; os._exit(0)')\n        except OSError: pass\n"
    ),
    "exit code by signal handler": "import atexit, os\natexit.register(os._exit, 0)\nimport sys; sys.exit(1)",
    "recursive data": "x = []\nx.append(x)\ndef f(y): return x",
    "deep data": "x = []\nfor _ in range(10**5): x = [x]\ndef f(y): return x",
    "large data": "def f(x): return 'x' * 10**8",
    "colliding data": "def f(x): return {i * (2**61 - 1) for i in range(20000)}",
    "a large number": "def f(x): return 10 ** (10 ** 6)",
    "surrogates": "def f(x): return '\\ud800'\nprint('2')",
    "a syntax error": "def f(x) return x + 1",
}
#: Cheats that end at the time limit, and the form in which `make test` tries each.
LONG = {
    "loop": "stdin",
    "loop in the call": "",
    "read the tests": "code",
    "colliding data": "",
    "garbage answers": "asserts",
    "flood": "asserts",
    "a large number": "stdin",
}


def is_quick(cheat: str, form: str) -> bool:
    """Whether `make test` tries a cheat in a form of tests."""
    return LONG.get(cheat, form) == form


@needs_bwrap
@pytest.mark.parametrize(("cheat", "form"), slow_unless(is_quick, product(CHEATS, FORMS)))
def test_cheats_do_not_pass(sandbox: Sandbox, cheat: str, form: str) -> None:
    tests, entry = FORMS[form]
    verdict = judge(sandbox, tests, CHEATS[cheat], entry)
    assert verdict.passed < verdict.total
    assert passes(sandbox, tests, RIGHT, entry), "and the next program is judged as ever"


@needs_bwrap
@pytest.mark.parametrize("loop", ["all(map(candidate, [1, 2]))", "all(candidate(x) for x in (1, 2))"])
def test_an_exception_cannot_end_a_loop_of_the_tests(sandbox: Sandbox, loop: str) -> None:
    tests = f"def check(candidate):\n    assert {loop}\n"
    assert passes(sandbox, tests, "def f(x): return x", "f")
    assert not passes(sandbox, tests, "def f(x): raise StopIteration", "f")


@needs_bwrap
def test_an_end_is_no_exception_that_a_test_could_expect(sandbox: Sandbox) -> None:
    tests = "import pytest\nfrom solution import f\ndef test():\n    with pytest.raises(Exception):\n        f(0)\n"
    assert passes(sandbox, tests, "def f(x): return 1 / x")
    assert not passes(sandbox, tests, "import os\ndef f(x): os._exit(0)")
    assert not passes(sandbox, tests, "def f(x): return 1")


@needs_bwrap
def test_test_code_that_asks_nothing_proves_nothing(sandbox: Sandbox) -> None:
    source = "from solution import f\nx = 1\nassert x == 1"
    assert CodeTests(source, None).judge(sandbox, [RIGHT], LIMITS, stop=True).passed == 0


RICH = """
import pytest
from solution import Stack, double

def test_calls():
    assert double(2) == 4
    assert sorted(double([3, 1])) == [1, 1, 3, 3]
    assert double(x=1.5) == pytest.approx(3.0)

def test_arguments_change():
    items = [1]
    double(items)
    assert items == [1, 'seen']

def test_errors():
    with pytest.raises(ZeroDivisionError, match='zero'):
        double(0)
    with pytest.raises(ValueError):
        double(None)

@pytest.mark.parametrize('x, y', [(1, 2), ('a', 'aa')])
def test_rows(x, y):
    assert double(x) == y

class TestStack:
    def test_objects(self):
        stack = Stack()
        stack.push(3)
        assert stack.size == 1 and len(stack) == 1
        assert stack.pop() == 3
        assert list(Stack.of(1, 2)) == [1, 2]
"""
RICH_PROGRAM = """
class Mine(ValueError): pass
class Stack:
    def __init__(self): self.items = []
    @classmethod
    def of(cls, *items):
        stack = cls()
        stack.items += items
        return stack
    @property
    def size(self): return len(self.items)
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
def double(x):
    if x is None: raise Mine('none')
    if x == 0: 1 / 0
    result = x * 2
    if isinstance(x, list): x.append('seen')
    return result
"""


@needs_bwrap
def test_pytest_style(sandbox: Sandbox) -> None:
    assert passes(sandbox, RICH, RICH_PROGRAM)
    for old, new in [
        ("'seen'", "'unseen'"),
        ("self.items.pop()", "4"),
        ("1 / 0", "pass"),
        ("x * 2", "x + x if x != 'a' else x"),
        ("len(self.items)", "2"),
        ("(ValueError)", "(KeyError)"),
    ]:
        assert not passes(sandbox, RICH, RICH_PROGRAM.replace(old, new)), (old, new)


UNITTEST = """
import unittest
from solution import Mine, Stack, double

class StackCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.first = 3
    def setUp(self):
        self.stack = Stack()
        self.stack.push(self.first)
    def tearDown(self):
        self.assertEqual(len(self.stack), 1)
    def test_pop(self):
        self.assertEqual(self.stack.pop(), 3)
        self.stack.push(1)
    def test_a_stack_of_its_own(self):
        with self.subTest('size'):
            self.assertEqual(self.stack.size, 1)
    def test_errors(self):
        with self.assertRaises(Mine) as caught:
            double(None)
        self.assertIn('none', str(caught.exception))
        self.assertRaises(ZeroDivisionError, double, 0)
        with self.assertRaisesRegex(ValueError, 'no'):
            double(None)

unittest.main()
"""
MARKS = """
import pytest
from solution import double

class TestDouble:
    def setup_method(self, method):
        self.two = double(1)

    @pytest.mark.slow
    @pytest.mark.timeout(5)
    @pytest.mark.parametrize(argnames=['x', 'y'], argvalues=[(1, 2), pytest.param(2, 4, id='two')])
    def test_rows(self, x, y):
        assert double(x) == y and self.two == 2
"""


@needs_bwrap
@pytest.mark.parametrize(
    ("tests", "faults"),
    [
        (UNITTEST, [("self.items.pop()", "4"), ("1 / 0", "pass"), ("'none'", "'x'"), ("x is None", "0"),
                    ("len(self.items)", "2"), ("self.items = []", "self.items = [1]")]),
        (MARKS, [("x * 2", "x + 2 - (x > 1)"), ("x * 2", "x + 1")]),
    ],
    ids=["unittest", "marks"],
)  # fmt: skip
def test_unittest_and_marks(sandbox: Sandbox, tests: str, faults: list[tuple[str, str]]) -> None:
    assert passes(sandbox, tests, RICH_PROGRAM)
    for old, new in faults:
        assert not passes(sandbox, tests, RICH_PROGRAM.replace(old, new)), (old, new)
    for cheat in ("exit", "an exception", "one equal to all", "nothing"):
        assert not passes(sandbox, tests, CHEATS[cheat].replace("f(x)", "double(x)")), cheat


EVALPLUS = """
import numpy as np
def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False
def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"
def check(candidate):
    inputs = [[0.1], [0.2], [3]]
    results = [0.3, 0.6, 9]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""


@needs_bwrap
def test_evalplus_style(sandbox: Sandbox) -> None:
    assert passes(sandbox, EVALPLUS, "def triple(x): return 3 * x", "triple")
    assert not passes(sandbox, EVALPLUS, "def triple(x): return 3.001 * x", "triple")
    assert not passes(sandbox, EVALPLUS, "def other(x): return 3 * x", "triple")


@needs_bwrap
def test_calls_find_methods_of_solution(sandbox: Sandbox) -> None:
    tests = {"fn_name": "twoSum", "inputs": [[[2, 7], 9]], "outputs": [[0, 1]]}
    program = "class Solution:\n    def twoSum(self, nums, target): return (0, 1)"
    assert passes(sandbox, tests, program)
    assert not passes(sandbox, tests, program.replace("(0, 1)", "(1, 0)"))


@needs_bwrap
def test_pass_rate_counts_what_passed_before_the_end(sandbox: Sandbox) -> None:
    half = "import os\ndef f(x): return x + 1 if x < 3 else os._exit(0)\nif __name__ == '__main__': print(f(int(input())))"
    for tests in (STDIN, ASSERTS):
        verdict = judge(sandbox, tests, half, stop=False)
        assert (verdict.passed, verdict.total) == (1, 2)
