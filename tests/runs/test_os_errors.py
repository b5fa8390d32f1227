"""Errors of the operating system as one line."""

from __future__ import annotations

import errno

import torch

from ecrl.runs import os_errors


def test_what_ran_out_is_said_in_a_line() -> None:
    # The wording of torch's own message.
    device = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB."
    said = os_errors.describe(torch.OutOfMemoryError(device))
    assert said is not None and said.startswith("Out of memory on the GPU (20.00 MiB more were")
    full = os_errors.describe(OSError(errno.ENOSPC, "No space left on device", "/disk/file"))
    assert full is not None and "The disk is full (/disk/file)" in full
    assert os_errors.describe(RuntimeError("shapes do not match")) is None
    assert (
        os_errors.describe(PermissionError(errno.EACCES, "Permission denied", "/a"))
        == "/a: Permission denied."
    )
    assert "Input/output error" in str(os_errors.describe(OSError(errno.EIO, "Input/output error")))
    assert os_errors.describe(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")) is None
