"""The model card of an exported policy: how it was trained, in words and in metadata that the hub reads."""

from __future__ import annotations

from pathlib import Path

from ecrl.config.schema import Config
from ecrl.runs.checkpoints import choose_checkpoint, iteration_of
from ecrl.runs.run import load_run
from ecrl.runs.versions import versions

_SHOWN = ("rollout/reward", "policy/entropy")


def write_card(run_dir: Path, which: str, folder: Path) -> None:
    """Write ``README.md`` beside a policy.

    Args:
        run_dir: the run that trained it.
        which: its checkpoint: ``last``, ``best`` or an iteration.
        folder: where the policy is.

    Raises:
        UsageError: no such run or checkpoint.
    """
    run = load_run(run_dir)
    config = run.config
    iteration = iteration_of(choose_checkpoint(run_dir, which, config.checkpoint.best))
    row = next((row for row in run.metrics if row["iteration"] == iteration), {})
    shown = {n: v for n, v in row.items() if v is not None and (n in _SHOWN or n.startswith("val/"))}
    (folder / "README.md").write_text(_card(config, iteration, shown), encoding="utf-8")


def _card(config: Config, iteration: int, shown: dict[str, float]) -> str:
    base, rollout = config.model.path, config.rollout
    on_hub = base is not None and not Path(base).exists()
    head = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [ecrl, reinforcement-learning]",
    ]
    head += [f"base_model: {base}"] if on_hub else []
    objective = str(config.objective["estimator"]["_target_"]).rpartition(".")[2]
    surrogate = str(config.objective["surrogate"]["_target_"]).rpartition(".")[2]
    rows = {
        "base model": (f"`{base}`" if on_hub else "a local model") if base else "the small model of ecrl",
        "task": f"`{config.env.id}`",
        "objective": f"advantages by `{objective}`, loss `{surrogate}`",
        "strategies": ", ".join(f"`{name}`" for name in config.strategy) or "none",
        "iterations": f"{iteration}, each of {rollout.prompts} problems × {rollout.group_size} answers",
        "learning rate": f"{config.update.lr:g}",
        "seed": str(config.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    lines = ["---", *head, "---", "", "# A policy trained by reinforcement learning with entropy control", ""]
    lines += _table("what", "value", rows)
    if shown:
        numbers = {f"`{name}`": f"{value:.4g}" for name, value in shown.items()}
        lines += ["", f"Metrics of iteration {iteration}:", "", *_table("metric", "value", numbers)]
    return "\n".join(lines) + "\n"


def _table(left: str, right: str, rows: dict[str, str]) -> list[str]:
    return [f"| {left} | {right} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
