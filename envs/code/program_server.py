"""Serves calls to a program that runs in a sandbox; only plain data goes in and out.

The sandbox gets this file as text, so it imports only the standard library. In the sandbox, `serve` loads the
program and answers requests. Outside, `encode` tells the form in which a value will arrive.
"""

# Without type annotations, because every sandbox compiles this text anew.
# mypy: ignore-errors

import json
import os
import sys

#: How many items of a generator are read; it may be endless.
_MAX_ITEMS = 10_000
_TAGS = {list: "list", tuple: "tuple", set: "set", frozenset: "set"}


def encode(value: object, other: object = repr) -> object:
    """Encode a value as data that JSON can hold.

    None, booleans, floats and strings stay as they are. An integer becomes ``["int", hex]``, because JSON
    readers treat long integers differently. A container becomes ``[kind, items]``. Anything else becomes
    ``["object", other(value)]``.
    """
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return ["int", hex(value)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, dict):
        return ["dict", [[encode(k, other), encode(v, other)] for k, v in value.items()]]
    for kind, tag in _TAGS.items():
        if isinstance(value, kind):
            return [tag, [encode(item, other) for item in value]]
    return ["object", other(value)]


def decode(data, other):
    """Decode what `encode` returned; ``other`` turns the description of an object into an object."""
    if not isinstance(data, list):
        return data
    tag, items = data
    if tag == "int":
        return int(items, 16)
    if tag == "bytes":
        return bytes.fromhex(items)
    if tag == "complex":
        return complex(*items)
    if tag == "dict":
        return {decode(k, other): decode(v, other) for k, v in items}
    if tag == "object":
        return other(items)
    return {"list": list, "tuple": tuple, "set": set}[tag](decode(item, other) for item in items)


def take_channel():
    """Keep stdin and stdout for requests and answers; the program itself reads and prints to /dev/null."""
    reader = os.fdopen(os.dup(0), encoding="utf-8", errors="surrogatepass")
    writer = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass", buffering=1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return reader, writer


class _Program:
    """A loaded program, and the objects of it that the other side refers to."""

    def __init__(self, sources):
        module = type(sys)("solution")
        sys.modules["solution"] = module
        self.names = module.__dict__
        self.objects = []
        for source in sources:
            exec(compile(source, "program.py", "exec"), self.names)

    def answer(self, request):
        """Carry out a request and encode the result or the exception."""
        try:
            args = decode(request.get("args", ["list", []]), self.objects.__getitem__)
            kwargs = decode(request.get("kwargs", ["dict", []]), self.objects.__getitem__)
            target = self._target(request)
            value = target if request.get("get") else target(*args, **kwargs)
            answer = {"value": encode(self._finite(value), self._keep)}
            if request.get("mutable"):
                answer["args"] = encode(args, self._keep)
            return answer
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            return {"raise": names, "message": str(error)[:1000]}

    def _target(self, request):
        name = request["name"]
        if "object" in request:
            return getattr(self.objects[request["object"]], name)
        if name not in self.names and "Solution" in self.names:
            return getattr(self.names["Solution"](), name)
        return self.names[name]

    def _keep(self, value):
        self.objects.append(value)
        return {"id": len(self.objects) - 1, "type": type(value).__name__}

    @staticmethod
    def _finite(value):
        """Turn iterators and views into a list."""
        if type(value).__name__ in _LAZY:
            return [item for _, item in zip(range(_MAX_ITEMS), value, strict=False)]
        return value


_LAZY = {"generator", "map", "filter", "zip", "enumerate", "reversed", "range_iterator", "list_iterator"}
_LAZY |= {"dict_keys", "dict_values", "dict_items", "dict_keyiterator", "range", "deque"}


def serve(*sources):
    """Load a program and answer requests, one line of JSON each, until stdin ends."""
    reader, writer = take_channel()
    program = _Program(sources)
    for line in reader:
        answer = program.answer(json.loads(line))
        writer.write(json.dumps(answer) + "\n")
