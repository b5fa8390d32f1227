"""Reads distributed checkpoints as data only.

torch's own reader unpickles whatever a checkpoint's ``.metadata`` and its entries that are no tensors hold,
which runs code if somebody else wrote them.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

#: What the metadata of a checkpoint is made of, by module; of the first module all classes.
_DESCRIPTIONS: dict[str, frozenset[str]] = {
    "torch.distributed.checkpoint.metadata": frozenset(),
    "torch.distributed.checkpoint.filesystem": frozenset({"_StorageInfo", "_StoragePrefix"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "torch": frozenset({"Size", "device"}),
    "collections": frozenset({"OrderedDict"}),
    # The folder that it was written to.
    "pathlib": frozenset({"PosixPath", "WindowsPath"}),
    "pathlib._local": frozenset({"PosixPath", "WindowsPath"}),  # Python 3.13
}


class DataOnlyReader(FileSystemReader):
    """torch's reader of a checkpoint folder, which runs nothing that is in it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read what the checkpoint holds.

        Raises:
            UnpicklingError: the file holds anything but descriptions of tensors.
        """
        data = Path(self.path, ".metadata").read_bytes()
        found = _Descriptions(io.BytesIO(data)).load()
        if not isinstance(found, Metadata):
            raise pickle.UnpicklingError(f"the .metadata is a {type(found).__name__}")
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class DataOnlyPlanner(DefaultLoadPlanner):
    """torch's planner, which loads entries that are no tensors as plain data."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Read one such entry.

        Raises:
            UnpicklingError: it is more than plain data.
        """
        torch.load(value, weights_only=True)  # raises at anything that could run code
        value.seek(0)
        super().load_bytes(read_item, value)


class _Descriptions(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Find a class or constant that describes tensors.

        Raises:
            UnpicklingError: it is another.
        """
        known = _DESCRIPTIONS.get(module)
        # A name with dots would reach what the module imports.
        if known is not None and "." not in name:
            found: Any = super().find_class(module, name)
            own = isinstance(found, type) and found.__module__ == Metadata.__module__ == module
            if name in known or own or isinstance(found, torch.dtype):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no description of a tensor")
