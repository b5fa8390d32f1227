"""Finds a checkpoint's tensors in a vLLM model, which stacks some of them, splits them over its workers
and pads vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ecrl.engines.checksum import WORD

Shapes = Mapping[str, Sequence[int]]
Packing = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Held:
    """The part of a checkpoint's tensor that a worker holds.

    Attributes:
        view: the part.
        row: its first row in the checkpoint's tensor.
        column: its first column there.
    """

    view: Tensor
    row: int
    column: int


def find_weights(model: nn.Module, packing: Packing, shapes: Shapes) -> tuple[dict[str, Held], list[str]]:
    """Find a checkpoint's tensors in a vLLM model.

    Args:
        model: vLLM's model, or a worker's part of it.
        packing: names of the checkpoint's modules that vLLM stacks into one, in order, by vLLM's name.
        shapes: shapes of the checkpoint's tensors, by the checkpoint's names.

    Returns:
        The part that is held of each tensor that was found with its shape; and the names of tensors that the
        model needs but ``shapes`` lacks.
    """
    held: dict[str, Held] = {}
    complete: set[int] = set()
    missing: list[tuple[str, Tensor]] = []
    # Duplicates are kept, so that both names of a tied embedding lead to its parameter.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module = model.get_submodule(name.rpartition(".")[0])
        # A layer that can have an adapter is the base of a layer of vLLM's with that name.
        parts = _checkpoint_names(name.replace(".base_layer.", "."), packing)
        absent = [part for part in parts if part not in shapes]
        missing += [(part, parameter) for part in absent]
        if not absent:
            complete.add(id(parameter))
            held |= _parts(module, parameter.detach(), parts, shapes)
    # A tied weight is complete if it was sent under any of its names.
    return held, [part for part, parameter in missing if id(parameter) not in complete]


def _parts(module: nn.Module, parameter: Tensor, names: Sequence[str], shapes: Shapes) -> dict[str, Held]:
    """Return the parts of the named tensors, which are stacked in a parameter; without those that do not fit.

    vLLM's layers say in ``tp_rank`` and ``tp_size`` how they are split. Layers that do not are whole.
    """
    rank, size = getattr(module, "tp_rank", 0), getattr(module, "tp_size", 1)
    total = sum(shapes[name][0] for name in names)
    found, start = {}, 0
    for number, name in enumerate(names):
        shape = list(shapes[name])
        if (vocabulary := getattr(module, "shard_indices", None)) is not None:
            row, end = vocabulary.org_vocab_start_index, vocabulary.org_vocab_end_index
        elif len(parameter) == total:
            row, end = 0, shape[0]
        else:
            # With fewer key heads than workers, several workers hold the same one.
            copies = getattr(module, "num_kv_head_replicas", 1) if number else 1
            row, end = (shape[0] * (rank // copies + i) * copies // size for i in range(2))
        view = parameter[start : start + end - row]
        start += end - row
        column = 0
        if shape[1:] != list(parameter.shape[1:]) and size > 1:
            column = rank * parameter.shape[-1]
            shape[-1] //= size
        if list(view.shape) == [end - row, *shape[1:]] and column * view.element_size() % WORD == 0:
            found[name] = Held(view, row, column)
    return found


def _checkpoint_names(name: str, packing: Packing) -> list[str]:
    """Return the checkpoint's names of the tensors in one vLLM parameter, in the order of its rows."""
    prefix, _, leaf = name.rpartition(".")
    prefix, _, module = prefix.rpartition(".")
    return [f"{prefix}.{part}.{leaf}" for part in packing[module]] if module in packing else [name]
