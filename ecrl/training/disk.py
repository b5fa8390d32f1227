"""How much disk a run needs, said before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ecrl.algorithm.objective import Objective
from ecrl.config.eval_sets import validation_sets
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.errors import UsageError
from ecrl.policy.lora import add_adapters
from ecrl.policy.meta_model import meta_model
from ecrl.policy.model import shipped_dtype
from ecrl.policy.optimizer import state_bytes
from ecrl.policy.weight_types import trained_dtype
from ecrl.training.validation import number_of_problems

_GIB = 2**30
#: Bytes a token on disk: compressed text with what is said of a response, and what the columns of tokens add.
#: Measured with English and with digits; floats hardly compress.
TEXT_BYTES, TOKEN_BYTES = 2.0, 30.0
SMALL = _GIB  # to which rollouts may come with tokens that nobody asked for


@dataclass(frozen=True)
class DiskUse:
    """What a run needs.

    Attributes:
        checkpoint: bytes of one checkpoint.
        checkpoints: the most of them at once; one is written before another is deleted.
        policy: bytes of the exported policy.
        rollouts: bytes of the rollouts that stay, if all responses are as long as they may be.
        free: bytes that the run can use.
    """

    checkpoint: float
    checkpoints: int
    policy: float
    rollouts: float
    free: float

    @property
    def most(self) -> float:
        """Bytes at the fullest moment."""
        return self.checkpoints * self.checkpoint + self.policy + self.rollouts

    @property
    def least(self) -> float:
        """Bytes without which the second checkpoint cannot be written."""
        return min(self.checkpoints, 2) * self.checkpoint + self.policy

    def __str__(self) -> str:
        many = f"up to {self.checkpoints} checkpoints of {_size(self.checkpoint)}"
        what = many if self.checkpoints > 1 else f"a checkpoint of {_size(self.checkpoint)}"
        rollouts = f", up to {_size(self.rollouts)} of rollouts" if self.rollouts else ""
        return f"{what}{rollouts} and a policy of {_size(self.policy)}; {_size(self.free)} are free"


def disk_use(config: Config) -> DiskUse | None:
    """Predict what a run needs; None for a model whose configuration is not on this machine yet."""
    try:
        lm: Any = meta_model(config.model)
    except UsageError:
        return None
    weights = sum(p.numel() for p in lm.parameters())
    if config.model.lora.r:
        with torch.device("meta"):
            add_adapters(lm, config.model.lora)
    ends = {id(module.weight) for module in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    trained = [p for p in lm.parameters() if p.requires_grad]
    matrices = sum(p.numel() for p in trained if p.ndim == 2 and id(p) not in ends)
    size = sum(p.numel() for p in trained)
    dtype = trained_dtype(config.model)
    weights_bytes = dtype.itemsize * size
    checkpoint = weights_bytes + state_bytes(config.update, dtype).total(matrices, size - matrices)
    objective: Objective = build(config.objective)
    checkpoint += len(objective.auxiliary) * 3 * weights_bytes  # AdamW keeps two numbers for each weight
    policy = shipped_dtype(lm.config).itemsize * weights
    return DiskUse(checkpoint, _checkpoints(config), policy, _rollouts(config), _free(config))


def check_disk(config: Config) -> list[str]:
    """Refuse a disk that cannot take two checkpoints, and warn of one that cannot take all.

    Raises:
        UsageError: says what is needed, what is free, and what to do.
    """
    use = disk_use(config)
    if use is None or use.most <= use.free:
        return []
    if use.least > use.free:
        raise UsageError(
            f"The disk is too full for this run: {use}. Free some space, or give a run_dir on another disk."
        )
    advice = "Lower checkpoint.keep or log.rollouts_keep, or raise checkpoint.keep_every"
    return [f"the disk will be full before the run ends: {use}. {advice}."]


def _checkpoints(config: Config) -> int:
    settings, iterations = config.checkpoint, config.iterations
    best = settings.best is not None and config.eval.every > 0
    for_good = iterations // settings.keep_every if settings.keep_every else 0
    writing = 1
    return min(settings.keep + best + for_good + writing, iterations)


def keeps_tokens(config: Config) -> bool:
    """Whether rollouts on disk hold each token: as the user says, or else where they stay small."""
    wanted = config.log.rollout_tokens
    return _rollout_tokens(config) * (TEXT_BYTES + TOKEN_BYTES) <= SMALL if wanted is None else wanted


def _rollouts(config: Config) -> float:
    """Bytes of the rollouts and the answers to validation sets that stay."""
    if not config.log.rollouts:
        return 0.0
    return _rollout_tokens(config) * (TEXT_BYTES + TOKEN_BYTES * keeps_tokens(config))


def _rollout_tokens(config: Config) -> float:
    """Tokens of the responses that stay on disk, if all are as long as they may be."""
    log, rollout = config.log, config.rollout
    kept = min(log.rollouts_keep or config.iterations, config.iterations)
    tokens = float(kept * rollout.prompts * rollout.group_size * rollout.max_new_tokens)
    for of in validation_sets(config) if config.eval.every else ():
        answers = number_of_problems(of, None) * (of.k + 1)
        tokens += (kept // of.every + 1) * answers * of.max_new_tokens
    return tokens


def _free(config: Config) -> float:
    """Bytes free where the run is, and those of the checkpoints that a resumed run has already."""
    place = Path(config.resume or config.run_dir or "runs").absolute()
    folder = next(path for path in (place, *place.parents) if path.exists())
    there = (place / "checkpoints").rglob("*") if config.resume else ()
    return shutil.disk_usage(folder).free + sum(file.stat().st_size for file in there if file.is_file())


def _size(size: float) -> str:
    return f"{size / _GIB:.3g} GiB" if size >= _GIB else f"{size / 2**20:.3g} MiB"
