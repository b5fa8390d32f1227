"""Versions of the packages that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("ecrl", "torch", "lightning", "transformers", "gymnasium", "hydra-core", "numpy", "tensorboard")


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_of_module(module: str) -> str | None:
    """Return the version of the package that has a module, whatever its name; None if there is none.

    vLLM's builds for other devices than NVIDIA's are packages of other names.
    """
    packages = metadata.packages_distributions().get(module, [])
    return version_of(packages[0]) if packages else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages."""
    found = {package: version_of(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {p: v for p, v in found.items() if v}
