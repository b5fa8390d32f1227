"""Names the knobs of the colocated vLLM engine; the engine itself takes this file's place."""

from __future__ import annotations

from ecrl.model import PolicyModel
from ecrl.world import World


class VLLMEngine:
    """Stands in for the engine until it is merged."""

    exact = False
    apart = False

    def __init__(
        self,
        model: PolicyModel,
        world: World,
        *,
        gpu_memory_utilization: float = 0.4,
        kv_cache_gib: float | None = None,
        dtype: str | None = None,
    ) -> None:
        raise NotImplementedError
