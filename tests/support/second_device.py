"""A second device that refuses what a GPU refuses, and computes in the CPU's memory.

It is torch's PrivateUse1 back end, registered from Python. Every operation sees the memory of its tensors as
tensors of the CPU, computes there, and gives the results back as tensors of the device. A tensor or a
generator that is elsewhere is an error. Registration lasts as long as the process. Unlike on a GPU, a module
that moves gets new parameters and loses its ties.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.trainer.connectors import accelerator_connector
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
_DLPACK = {"cpu": 1, NAME: 12}  # DLPack's numbers of the devices
_CPU = torch.device("cpu")
_CPU_KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
# They only make another tensor of the same storage, whatever the device.
_VIEWS = ("as_strided", "view", "_reshape_alias", "unfold")

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_libraries: list[torch.library.Library] = []  # what they register ends with them


def register() -> torch.device:
    """Make the device known to torch and to Lightning, which takes it for ``trainer.accelerator=auto``."""
    if not _libraries:
        _setup_privateuseone_for_python_backend(NAME, _DeviceModule())
        aten, every = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
        for name in _VIEWS:
            aten.impl(name, _cpu_kernel(name), "PrivateUse1")
        aten.impl("_copy_from", _copy, "PrivateUse1")
        # A copy that does not block goes to pinned memory, and there is none.
        aten.impl("_to_copy", _cpu_kernel("_to_copy", non_blocking=False), "PrivateUse1")
        every.fallback(_compute, "PrivateUse1")
        _libraries.extend((aten, every))
        AcceleratorRegistry.register(NAME, SecondAccelerator)
        accelerator_connector._select_auto_accelerator = lambda: NAME
    return torch.device(NAME, 0)


class SecondAccelerator(Accelerator):
    """Lightning's name for it."""

    def setup_device(self, device: torch.device) -> None:
        if device.type != NAME:
            raise ValueError(f"{device} is not {NAME}")

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return list(range(int(devices)))

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device(NAME, index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


class _DeviceModule:
    """What torch looks for in ``torch.second``; random numbers come from the CPU's generator."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def current_stream(self) -> torch.Stream:
        return torch.accelerator.current_stream()

    def stream(self, stream: torch.Stream) -> AbstractContextManager[None]:
        return nullcontext()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _compute(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation of the device in the CPU's memory."""
    entered: dict[int, tuple[Tensor, Tensor]] = {}  # by identity: the CPU's view, and the device's tensor

    def enter(x: Any) -> Any:
        if isinstance(x, Tensor):
            if not x.is_cpu:
                # An output without elements may be about to grow, for which its memory must be the CPU's own.
                view = _seen_from("cpu", x) if x.numel() else torch.empty(x.shape, dtype=x.dtype)
                entered[id(view)] = view, x
                return view
            if x.dim():  # a number may be anywhere
                raise RuntimeError(
                    f"{op}: expected all tensors on {NAME}, got {tuple(x.shape)} on {x.device}"
                )
        elif isinstance(x, (list, tuple)):
            return [enter(y) for y in x]
        elif isinstance(x, torch.Generator):
            raise RuntimeError(f"{op}: wanted a generator of {NAME}, got one of {x.device}")
        return _CPU if isinstance(x, torch.device) else x

    def leave(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(leave(y) for y in x)
        if not isinstance(x, Tensor):
            return x
        return entered[id(x)][1] if id(x) in entered else _seen_from(NAME, x)

    result = op(*map(enter, args), **{name: enter(x) for name, x in kwargs.items()})
    for view, tensor in entered.values():
        if view.shape != tensor.shape:  # an output that has grown
            tensor.data = _seen_from(NAME, view)
    return leave(result)


def _seen_from(device: str, tensor: Tensor) -> Tensor:
    """Make a tensor of another device that has the same memory: one handed over with the device changed."""
    capsule = torch._C._to_dlpack(tensor)
    managed = _capsule_pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(managed + ctypes.sizeof(ctypes.c_void_p)).value = _DLPACK[device]
    return torch._C._from_dlpack(capsule)


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between the devices, or within this one."""
    source, into = (x if x.is_cpu else _seen_from("cpu", x) for x in (source, target))
    into.copy_(source)
    return target


def _cpu_kernel(name: str, **settings: Any) -> Callable[..., Any]:
    """Return the CPU's kernel of an operation, to be called with tensors of the device."""
    op = getattr(torch.ops.aten, name).default
    return lambda *args, **kwargs: op.redispatch(_CPU_KEY, *args, **{**kwargs, **settings})
