"""Training from Python: ``ecrl.train`` and ``ecrl.load_policy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ecrl.algorithm.strategy import Strategy
from ecrl.config.resume import changed_config, composed_config, run_config
from ecrl.config.schema import Config
from ecrl.distributed.launch import launched, peers_named, processes
from ecrl.errors import UsageError
from ecrl.policy.model import load_tokenizer
from ecrl.runs.run import Run, load_run
from ecrl.training import run as one_run
from ecrl.training.export import exported_policy


def train(
    *overrides: str | Config,
    callbacks: Sequence[L.Callback] = (),
    strategies: Sequence[Strategy] = (),
    config_dir: Path | str | None = None,
    **settings: Any,
) -> Run:
    """Train a policy, or resume or fork a run.

    Args:
        overrides: what ``ecrl train`` takes, e.g. ``"strategy=[clip_cov]"``; the first may be a whole
            configuration instead, which the others change.
        callbacks: Lightning callbacks beside the monitors, called before an iteration's row is written.
        strategies: strategies behind those of the configuration, an object for each run. A run that got any
            is resumed with the same, from Python.
        config_dir: a folder of your own config groups, searched as well.
        **settings: top-level keys, e.g. ``iterations=50``.

    Returns:
        The run: its folder, its metrics.

    Raises:
        UsageError: something cannot work; nothing was written.
        NonFiniteError: training diverged; a checkpoint was left.
    """
    for name, given in {"callbacks": callbacks, "strategies": strategies}.items():
        if not isinstance(given, (list, tuple)):
            raise UsageError(f"{name}=[…] takes a list of objects, got {given!r}.")
    changes = [f"{key}={_word(value)}" for key, value in settings.items()]
    folder = None if config_dir is None else Path(config_dir).expanduser()
    config = _config(overrides[0] if overrides else None, [*overrides[1:], *changes], folder)
    if processes(config) > 1 and not launched():
        raise UsageError(
            f"{processes(config)} processes: start this program in each of them, by torchrun "
            f"--nproc-per-node={config.trainer.devices} PROGRAM, or use `ecrl train`, which starts its own."
        )
    for callback in callbacks:
        if not isinstance(callback, L.Callback) or isinstance(callback, Strategy):
            raise UsageError(f"callbacks=[…] takes Lightning callbacks, got {callback!r}.")
    command = None if callbacks or strategies else _command(overrides, changes, folder)
    with peers_named():
        outcome = one_run.train(config, command=command, callbacks=callbacks, given=strategies)
    return Run(outcome.run_dir)


def load_policy(
    run: Run | Path | str, checkpoint: str | int = "last"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the policy of a run's checkpoint, with adapters merged.

    Args:
        run: the run, or its folder.
        checkpoint: ``last``, ``best`` or an iteration.

    Returns:
        The model, which has ``generate``, and its tokenizer.

    Raises:
        UsageError: no such run or checkpoint.
    """
    run_dir = run.dir if isinstance(run, Run) else load_run(run).dir
    settings = run_config(run_dir, [f"checkpoint.load={checkpoint}"]).checkpoint
    with exported_policy(run_dir, settings) as folder:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        return model.eval(), load_tokenizer(str(folder))


def _config(first: str | Config | None, rest: Sequence[str | Config], config_dir: Path | None) -> Config:
    words = [*([] if first is None or isinstance(first, Config) else [first]), *rest]
    for word in words:
        if not isinstance(word, str):
            raise UsageError(f"ecrl.train takes overrides as text, or one Config before them; got {word!r}.")
    texts = [word for word in words if isinstance(word, str)]
    return (
        changed_config(first, texts, config_dir)
        if isinstance(first, Config)
        else composed_config(texts, config_dir)
    )


def _command(
    overrides: Sequence[str | Config], changes: Sequence[str], config_dir: Path | None
) -> list[str] | None:
    """Return the words with which ``ecrl train`` does the same; None for a whole configuration."""
    if any(isinstance(override, Config) for override in overrides):
        return None
    folder = [] if config_dir is None else ["--config-dir", str(config_dir)]
    return [*map(str, overrides), *changes, *folder]


def _word(value: Any) -> str:
    """Write a value as an override has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_word, value)) + "]"
    return str(value)
