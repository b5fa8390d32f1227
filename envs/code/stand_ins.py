"""Stand-ins for pytest, numpy and unittest, with the few parts that test code can use in a sandbox.

The sandbox of the test code gets this file as text, between `program_server.py` and `judge.py`.
"""

# Without type annotations, because every sandbox compiles this text anew.
# mypy: ignore-errors

import itertools
import types


class _Raises:
    def __init__(self, kinds, match=None):
        self._kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        self._match = match
        self.value = self.exception = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        import re

        if error is None:
            raise AssertionError("nothing was raised")
        names = getattr(error, "names", ())
        wanted = any(
            isinstance(error, k) if isinstance(k, type) else k.__name__ in names for k in self._kinds
        )
        self.value = self.exception = error
        return wanted and (self._match is None or re.search(self._match, str(error)) is not None)


class _Approx:
    def __init__(self, expected, rel=1e-6, abs=1e-12, nan_ok=False):
        self._expected, self._rel, self._abs = expected, rel or 1e-6, abs or 1e-12

    def __eq__(self, other):
        return self._near(other, self._expected)

    def _near(self, got, want):
        import math

        if isinstance(want, (list, tuple)):
            return len(got) == len(want) and all(map(self._near, got, want))
        if isinstance(want, dict):
            return got.keys() == want.keys() and all(self._near(got[k], want[k]) for k in want)
        return math.isclose(got, want, rel_tol=self._rel, abs_tol=self._abs)


def _parametrize(argnames, argvalues, **_):
    names = [name.strip() for name in argnames.split(",")] if isinstance(argnames, str) else list(argnames)

    def mark(test):
        rows = [dict(zip(names, row if len(names) > 1 else [row], strict=False)) for row in argvalues]
        test.rows = [{**a, **b} for a, b in itertools.product(getattr(test, "rows", [{}]), rows)]
        return test

    return mark


class _Marks:
    """`pytest.mark`: every mark except ``parametrize`` does nothing, with arguments or without."""

    parametrize = staticmethod(_parametrize)

    def __getattr__(self, name):
        return lambda *args, **_: args[0] if args and callable(args[0]) else lambda test: test


def _param(*values, **_):
    return values if len(values) > 1 else values[0]


def make_pytest():
    """Make a module with the parts of pytest that tests of functions use."""
    module = types.ModuleType("pytest")
    module.raises, module.approx, module.mark, module.param = _Raises, _Approx, _Marks(), _param
    return module


def _assert_raises(case, kinds, function=None, *args, match=None, msg=None, **kwargs):
    """`TestCase.assertRaises` that also accepts the program's own exceptions."""
    raises = _Raises(kinds, match)
    if function is None:
        return raises
    with raises:
        function(*args, **kwargs)


def _assert_raises_regex(case, kinds, match, function=None, *args, **kwargs):
    return _assert_raises(case, kinds, function, *args, match=match, **kwargs)


def adapt_unittest():
    """Let `judge` run unittest's classes, and let them accept the program's own exceptions."""
    import unittest

    unittest.main = lambda *_, **__: None
    unittest.TestCase.assertRaises = _assert_raises
    unittest.TestCase.assertRaisesRegex = _assert_raises_regex
    return unittest.TestCase


def _allclose(got, want, rtol=1e-5, atol=1e-8):
    """`numpy.allclose` for numbers and nested sequences of one length."""
    if hasattr(want, "__len__") or hasattr(got, "__len__"):
        return len(got) == len(want) and all(
            _allclose(a, b, rtol, atol) for a, b in zip(got, want, strict=True)
        )
    return got == want or abs(got - want) <= atol + rtol * abs(want)


def make_numpy():
    """Make a module with the parts of numpy that the tests of HumanEval+ and MBPP+ use."""
    module = types.ModuleType("numpy")
    module.allclose, module.ndarray = _allclose, type("ndarray", (), {})
    module.float32 = module.float64 = float
    return module
