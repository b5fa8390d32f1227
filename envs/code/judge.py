"""Runs test code beside a program that it cannot see and that cannot see it.

The tests' sandbox gets this file as text, after `remote.py` and `testing.py`. What the tests import from the
program are stand-ins: a call sends its arguments to the program's own sandbox and gets plain data back.
Nothing else crosses, so no program can read the expected values, and none can touch what compares them.
"""

# Types stay out: this text is compiled anew in every sandbox.
# mypy: ignore-errors
# ruff: noqa: D102

import builtins
import json
import os
import sys
import types

from ecrl.envs.sandbox.remote import decode, encode, take_channel
from ecrl.envs.sandbox.testing import adapt_unittest, make_numpy, make_pytest


class _Ended(BaseException):
    """The program is gone: no exception of its own, so no test may expect it."""


class _Channel:
    def __init__(self):
        self._reader, self._writer = take_channel()
        self.calls = 0
        self.ended = False

    def ask(self, request):
        """Send a request and return the answer, or raise what the program raised."""
        self.calls += "get" not in request
        self._writer.write(json.dumps(request) + "\n")
        line = self._reader.readline()
        if not line:
            self.ended = True
            raise _Ended("the program has ended")
        answer = json.loads(line)
        if "raise" in answer:
            raise _exception(answer["raise"], answer["message"])
        return answer

    def get(self, **where):
        return decode(self.ask({"get": True, **where})["value"], Thing)

    def call(self, args, kwargs, **where):
        mutable = any(isinstance(arg, (list, dict, set)) for arg in args)
        encoded = encode(list(args), _refer), encode(kwargs, _refer)
        answer = self.ask({"args": encoded[0], "kwargs": encoded[1], "mutable": mutable, **where})
        if mutable:
            for mine, theirs in zip(args, decode(answer["args"], Thing), strict=False):
                _become(mine, theirs)
        return decode(answer["value"], Thing)


def _become(mine, theirs):
    """Repeat in a test's own argument what the program did to its copy."""
    if type(mine) is not type(theirs) or not isinstance(mine, (list, dict, set)):
        return
    if isinstance(mine, list):
        mine[:] = theirs
    else:
        mine.clear()
        mine.update(theirs)


def _exception(names, message):
    """The built-in exception nearest to the program's; never one that could end the judge quietly."""
    for name in names:
        kind = getattr(builtins, name, None)
        # StopIteration would end a loop of the tests, `all(map(f, cases))` say, as if all was well.
        if isinstance(kind, type) and issubclass(kind, Exception) and not name.startswith("Stop"):
            break
    else:
        kind = RuntimeError
    try:
        error = kind(message)
    except TypeError:
        error = RuntimeError(message)
    error.names = names
    return error


def _refer(value):
    if isinstance(value, Thing):
        return value._id
    raise TypeError(f"a {type(value).__name__} cannot be sent to the program")


class Thing:
    """An object that stays in the program's sandbox.

    It forwards attributes and a few questions, but no comparison: that would send the expected value.
    """

    def __init__(self, description):
        self.__dict__.update(_id=description["id"], _type=description["type"])

    def __getattr__(self, name):
        value = _channel.get(object=self._id, name=name)
        return Function(name, object=self._id) if isinstance(value, Thing) and value._callable else value

    def __call__(self, *args, **kwargs):
        return _channel.call(args, kwargs, object=self._id, name="__call__")

    @property
    def _callable(self):
        return self._type in ("method", "function", "builtin_function_or_method", "method-wrapper", "type")

    def __len__(self):
        return _channel.call((), {}, object=self._id, name="__len__")

    def __str__(self):
        return str(_channel.call((), {}, object=self._id, name="__str__"))

    def __repr__(self):
        return str(_channel.call((), {}, object=self._id, name="__repr__"))

    def __getitem__(self, key):
        return _channel.call((key,), {}, object=self._id, name="__getitem__")

    def __iter__(self):
        return iter(_channel.call((), {}, object=self._id, name="__iter__"))


class Function:
    """A name of the program: called, it runs there; asked for an attribute, it is fetched there."""

    def __init__(self, name, **where):
        self.__name__ = name
        self._where = {"name": name, **where}

    def __call__(self, *args, **kwargs):
        return _channel.call(args, kwargs, **self._where)

    def __getattr__(self, name):
        return getattr(_channel.get(**self._where), name)


class _Solution(types.ModuleType):
    """What `import solution` gives the tests."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = _channel.get(name=name)
        return Function(name) if isinstance(value, Thing) and value._callable else value


class _Names(dict):
    """The tests' global names; the program's come after their own and the built-in ones."""

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        try:
            return getattr(sys.modules["solution"], name)
        except Exception:
            raise KeyError(name) from None


def _hook(where, name, *rest):
    """Call what a class may have to be called before and after its tests; pytest's may take the method."""
    hook = getattr(where, name, None)
    if hook is not None:
        hook(*rest[: hook.__code__.co_argcount - 1])


def _play(test):
    """Run the tests of a class, each on an object of its own."""
    _hook(test, "setUpClass")
    _hook(test, "setup_class")
    for name in [name for name in dir(test) if name.startswith("test")]:
        rows = getattr(getattr(test, name), "rows", [{}])
        for row in rows:
            case = test()
            _hook(case, "setUp")
            _hook(case, "setup_method", getattr(case, name))
            getattr(case, name)(**row)
            _hook(case, "teardown_method", getattr(case, name))
            _hook(case, "tearDown")
    _hook(test, "teardown_class")
    _hook(test, "tearDownClass")


def judge(tests, entry):
    """Run test code: its top level, then `check`, then every `test_*`; exit code 0 says that all held."""
    global _channel
    # Only this copy may say that all went well.
    leave = os._exit
    _channel = _Channel()
    sys.modules["solution"] = _Solution("solution")
    sys.modules["pytest"], sys.modules["numpy"] = make_pytest(), make_numpy()
    names = _Names(__name__="tests", __builtins__=builtins)
    cases = adapt_unittest() if "unittest" in tests else ()
    if entry:
        names["candidate"] = names[entry] = Function(entry)
    try:
        exec(compile(tests, "tests.py", "exec"), names)
        if entry and callable(names.get("check")):
            names["check"](Function(entry))
        for name, test in list(names.items()):
            if name.startswith("test") and isinstance(test, types.FunctionType):
                for row in getattr(test, "rows", [{}]):
                    test(**row)
            elif isinstance(test, type) and (name.startswith("Test") or issubclass(test, cases)):
                _play(test)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}"[:1000])
        sys.stderr.flush()
        leave(1)
    # Tests that asked the program nothing say nothing about it.
    leave(0 if _channel.calls and not _channel.ended else 1)
