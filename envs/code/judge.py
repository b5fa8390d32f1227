"""Runs test code in one sandbox against a program in another.

The sandbox of the test code gets this file as text, after `program_server.py` and `stand_ins.py`. Names that
the tests import from the program are proxies: a call sends its arguments to the program's sandbox and gets
plain data back. Nothing else passes between the two, so a program can neither read the expected values nor
change the code that compares them.
"""

# Without type annotations, because every sandbox compiles this text anew.
# mypy: ignore-errors
# ruff: noqa: D102

import builtins
import json
import os
import sys
import types

from ecrl.envs.code.program_server import decode, encode, take_channel
from ecrl.envs.code.stand_ins import adapt_unittest, make_numpy, make_pytest


class _Ended(BaseException):
    """The program has ended. A BaseException, so that no test can expect it as an exception."""


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
        return decode(self.ask({"get": True, **where})["value"], Proxy)

    def call(self, args, kwargs, **where):
        mutable = any(isinstance(arg, (list, dict, set)) for arg in args)
        encoded = encode(list(args), _reference), encode(kwargs, _reference)
        answer = self.ask({"args": encoded[0], "kwargs": encoded[1], "mutable": mutable, **where})
        if mutable:
            for mine, theirs in zip(args, decode(answer["args"], Proxy), strict=False):
                _become(mine, theirs)
        return decode(answer["value"], Proxy)


def _become(mine, theirs):
    """Repeat on a test's own argument the changes that the program made to its copy."""
    if type(mine) is not type(theirs) or not isinstance(mine, (list, dict, set)):
        return
    if isinstance(mine, list):
        mine[:] = theirs
    else:
        mine.clear()
        mine.update(theirs)


def _exception(names, message):
    """Return the nearest built-in exception to the program's, but none that could end the judge silently."""
    for name in names:
        kind = getattr(builtins, name, None)
        # StopIteration would end a loop of the tests, such as `all(map(f, cases))`, without a failure.
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


def _reference(value):
    if isinstance(value, Proxy):
        return value._id
    raise TypeError(f"a {type(value).__name__} cannot be sent to the program")


class Proxy:
    """A proxy of an object that stays in the program's sandbox.

    It forwards attributes, calls and a few other operations, but no comparison, because a comparison would
    send the expected value to the program.
    """

    def __init__(self, description):
        self.__dict__.update(_id=description["id"], _type=description["type"])

    def __getattr__(self, name):
        value = _channel.get(object=self._id, name=name)
        return FunctionProxy(name, object=self._id) if isinstance(value, Proxy) and value._callable else value

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


class FunctionProxy:
    """A proxy of a function of the program; calls and attributes are looked up in the program's sandbox."""

    def __init__(self, name, **where):
        self.__name__ = name
        self._where = {"name": name, **where}

    def __call__(self, *args, **kwargs):
        return _channel.call(args, kwargs, **self._where)

    def __getattr__(self, name):
        return getattr(_channel.get(**self._where), name)


class _Solution(types.ModuleType):
    """The module that the tests get from `import solution`."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = _channel.get(name=name)
        return FunctionProxy(name) if isinstance(value, Proxy) and value._callable else value


class _Names(dict):
    """The tests' global names: their own first, then the built-in ones, then the program's."""

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        try:
            return getattr(sys.modules["solution"], name)
        except Exception:
            raise KeyError(name) from None


def _hook(where, name, *rest):
    """Call a set-up or tear-down function if there is one; pytest's may take the test method."""
    hook = getattr(where, name, None)
    if hook is not None:
        hook(*rest[: hook.__code__.co_argcount - 1])


def _run_class(test):
    """Run the tests of a class, each on a new object."""
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
    """Run test code: its top level, then `check`, then every `test_*`; exit with 0 if all pass."""
    global _channel
    # Keep a reference of our own, because the test code may replace `os._exit`.
    leave = os._exit
    _channel = _Channel()
    sys.modules["solution"] = _Solution("solution")
    sys.modules["pytest"], sys.modules["numpy"] = make_pytest(), make_numpy()
    names = _Names(__name__="tests", __builtins__=builtins)
    cases = adapt_unittest() if "unittest" in tests else ()
    if entry:
        names["candidate"] = names[entry] = FunctionProxy(entry)
    try:
        exec(compile(tests, "tests.py", "exec"), names)
        if entry and callable(names.get("check")):
            names["check"](FunctionProxy(entry))
        for name, test in list(names.items()):
            if name.startswith("test") and isinstance(test, types.FunctionType):
                for row in getattr(test, "rows", [{}]):
                    test(**row)
            elif isinstance(test, type) and (name.startswith("Test") or issubclass(test, cases)):
                _run_class(test)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}"[:1000])
        sys.stderr.flush()
        leave(1)
    # Tests that never called the program prove nothing about it.
    leave(0 if _channel.calls and not _channel.ended else 1)
