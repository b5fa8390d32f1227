"""How many tokens a model can read and write together, by its ``config.json``."""

from __future__ import annotations

from typing import Any

#: Kinds of rotary scaling that stretch the window beyond ``max_position_embeddings``, by ``factor``.
_STRETCHING = ("linear", "dynamic", "yarn")


def context_window(config: Any) -> int | None:
    """Return the window of a transformers configuration, in tokens; None if it names none.

    Args:
        config: of a causal language model.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    scaling = getattr(config, "rope_parameters", None) or {}
    if scaling.get("rope_type") not in _STRETCHING:
        return positions
    trained = scaling.get("original_max_position_embeddings") or positions
    return max(positions, int(trained * scaling.get("factor", 1)))
