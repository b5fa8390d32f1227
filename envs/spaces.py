"""A Gymnasium space of Unicode strings, and how vector environments share them between processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from numpy.typing import NDArray

_MAX_SAMPLE = 64


class Text(gym.Space[str]):
    """All strings of at most ``max_length`` characters, including the empty one.

    Gymnasium's own ``Text`` needs a list of the allowed characters; Unicode has too many for that.

    Args:
        max_length: longest string, in code points.
        seed: seed of `sample`.

    Raises:
        ValueError: ``max_length`` is negative.
    """

    def __init__(self, max_length: int, seed: int | np.random.Generator | None = None) -> None:
        if max_length < 0:
            raise ValueError(f"Text: max_length must not be negative; got {max_length}.")
        self.max_length = max_length
        super().__init__(shape=None, dtype=str, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: a string cannot be written as an array of fixed length."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Draw up to 64 printable ASCII characters, length and characters uniform.

        Raises:
            ValueError: ``mask`` or ``probability`` is given; strings support neither.
        """
        if mask is not None or probability is not None:
            raise ValueError("Text: sample takes no mask and no probability.")
        length = self.np_random.integers(min(self.max_length, _MAX_SAMPLE) + 1)
        return "".join(map(chr, self.np_random.integers(ord(" "), ord("~") + 1, length).tolist()))

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` is a string of at most ``max_length`` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.max_length == other.max_length

    def __hash__(self) -> int:
        return hash((Text, self.max_length))

    def __repr__(self) -> str:
        return f"Text({self.max_length})"


class SharedTexts(Sequence[str]):
    """A view of the strings that worker processes last wrote; a deep copy is a tuple of the current strings.

    ``AsyncVectorEnv`` reads its shared memory only once, when it is made; later it copies what that read
    returned. So the read must return a view: plain strings would stay empty for ever.

    Args:
        memory: ``[n, 1 + max_length]`` int32: the length of each string, then its code points.
    """

    def __init__(self, memory: NDArray[np.int32]) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        row = self._memory[index]
        codes: bytes = row[1 : 1 + row[0]].astype("<i4").tobytes()
        return codes.decode("utf-32-le", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@create_shared_memory.register(Text)
def _create(space: Text, n: int = 1, ctx: Any = None) -> Any:
    return ctx.Array(np.dtype(np.int32).char, n * (1 + space.max_length))


@read_from_shared_memory.register(Text)
def _read(space: Text, shared_memory: Any, n: int = 1) -> SharedTexts:
    memory = np.frombuffer(shared_memory.get_obj(), dtype=np.int32)
    return SharedTexts(memory.reshape(n, 1 + space.max_length))


@write_to_shared_memory.register(Text)
def _write(space: Text, index: int, value: str, shared_memory: Any) -> None:
    memory = np.frombuffer(shared_memory.get_obj(), dtype=np.int32).reshape(-1, 1 + space.max_length)
    memory[index, 0] = len(value)
    memory[index, 1 : 1 + len(value)] = np.frombuffer(value.encode("utf-32-le", "surrogatepass"), "<i4")
