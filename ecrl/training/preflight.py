"""Everything that can be checked before a model is loaded, once, in one order.

``ecrl.config.validate`` has judged single settings by then; here the parts are built and looked at together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.config.eval_sets import validation_sets
from ecrl.config.schema import Config
from ecrl.config.targets import build, resolve
from ecrl.config.validate import check_values
from ecrl.distributed.launch import check_launch
from ecrl.distributed.tensor_parallel import check_tensor_parallel
from ecrl.envs.base import Split
from ecrl.errors import UsageError, usage_errors
from ecrl.policy.context_window import context_window
from ecrl.policy.lora import check_targets, linear_layers
from ecrl.policy.meta_model import meta_model, model_config
from ecrl.policy.model import check_model
from ecrl.policy.optimizer import state_bytes
from ecrl.policy.quantization import check_quantization
from ecrl.policy.weight_types import held_bytes, trained_dtype
from ecrl.runs.given_objects import check_given
from ecrl.runs.run_dir import check_run_dir
from ecrl.training.blame import parts_named
from ecrl.training.callbacks import build_callbacks
from ecrl.training.disk import check_disk
from ecrl.training.loggers.run_loggers import check_loggers
from ecrl.training.precision import BF16, precision_of, resolved
from ecrl.training.problem_checks import check_environments

_GIB = 2**30


def preflight(
    config: Config,
    training: bool = True,
    splits: Sequence[Split] | None = None,
    given: Sequence[Strategy] = (),
) -> list[str]:
    """Run every check, in this order; nothing is loaded, started or written.

    Args:
        config: the whole configuration.
        training: the policy is trained, not only evaluated.
        splits: those whose environments are tried; None for those that training or evaluation uses.
        given: strategies from Python.

    Returns:
        Warnings, a line each.

    Raises:
        UsageError: something cannot work; says what, and what to do.
    """
    check_values(resolved(config))  # the rules hold for the precision that `auto` is here
    if config.model.quantization:
        check_quantization()  # its package is installed
    objective: Objective = build(config.objective)  # its parts exist and take their arguments
    strategies = build_strategies(config.strategy, given)  # so do the strategies
    build_callbacks(config)  # and the monitors
    check_loggers(config)  # the loggers' packages are installed
    check_launch(config)  # as many processes were started as the run wants
    check_groups(config, objective)  # the estimator has something to compare
    check_run_dir(config)  # the run's folder is new, or can be gone on with
    check_given(config, given)  # with the strategies that it had from Python
    splits = splits or _splits(config, training)
    warnings = check_environments(config, splits)  # they can be made, and share no problems
    if config.model.path:
        check_model(config.model.path)  # the path holds a model, or may be a hub id
    resolve(config.engine["_target_"], "engine").check(config)  # the engine is installed and reachable
    if training:
        state_bytes(config.update, trained_dtype(config.model))  # the optimizer can be built, and steps
    check_window(config, training)  # the model can read prompt and completion together
    check_size(config, training)  # the processes can split, adapt and hold the model
    check_partial(config, objective, strategies)  # completions can go on with other weights
    check_entropies(config, strategies)  # the rollout has them where a strategy reads them
    with parts_named({f"strategy.{strategy.name}": strategy for strategy in strategies}, None):
        warnings += [*check_stack(config, strategies), *_staleness_warnings(config, strategies)]
    if training:
        warnings += [*_rounding_warnings(config), *check_disk(config)]  # its disk can hold the checkpoints
    return warnings


def check_groups(config: Config, objective: Objective) -> None:
    """Refuse groups that are too small for what the objective does with the completions of a group.

    Raises:
        UsageError: says what to use instead.
    """
    size, least = config.rollout.group_size, objective.least_group
    if size < least:
        name = getattr(objective.estimator, "func", objective.estimator).__name__
        raise UsageError(
            f"rollout.group_size={size} leaves the estimator {name} too few to compare: every advantage "
            f"would be 0. Use a group of {least} or more, or objective=reinforce_pp."
        )
    if size == 1 and objective.filters.drop_zero_variance:
        raise UsageError(
            "rollout.group_size=1 makes every group one of zero variance, and all would be dropped; set "
            "objective.filters.drop_zero_variance=false."
        )


def check_partial(config: Config, objective: Objective, strategies: Sequence[Strategy]) -> None:
    """Refuse partial rollouts where they cannot be drawn, or would not be corrected.

    Raises:
        UsageError: says what is missing.
    """
    if not config.rollout.partial:
        return
    if not resolve(config.engine["_target_"], "engine").pausable:
        raise UsageError("rollout.partial=true needs an engine that can pause: engine=vllm_server.")
    if not any(strategy.corrects_staleness for strategy in strategies):
        raise UsageError(
            "rollout.partial=true draws completions by several versions of the weights; add "
            "importance_correction to strategy=[…], which corrects for it."
        )
    if not config.rollout.staleness:
        raise UsageError(
            "rollout.partial=true draws ahead of training; set rollout.staleness to 1 or more, the number of "
            "weight syncs that a completion may see."
        )
    if objective.filters.max_resample:
        raise UsageError(
            f"objective.filters.max_resample={objective.filters.max_resample} would pose problems in an "
            "order that depends on time under rollout.partial=true; set it to 0."
        )


def check_entropies(config: Config, strategies: Sequence[Strategy]) -> None:
    """Refuse a strategy that reads the rollout's entropy where nothing computes it.

    Raises:
        UsageError: says what to do instead.
    """
    engine = resolve(config.engine["_target_"], "engine")
    if config.rollout.old_logprobs == "recompute" or engine.reports_entropy:
        return
    for strategy in strategies:
        if strategy.needs_entropy:
            raise UsageError(
                f"strategy.{strategy.name} reads the rollout's entropy, which {engine.__name__} does not "
                "report; set rollout.old_logprobs=recompute, which computes it."
            )


def _splits(config: Config, training: bool) -> list[Split]:
    validates = not training or config.eval.every > 0
    return [*(["train"] if training else []), *(["val"] if validates else [])]  # type: ignore[list-item]


def _staleness_warnings(config: Config, strategies: Sequence[Strategy]) -> list[str]:
    staleness, warnings = config.rollout.staleness, []
    if staleness >= config.iterations:
        warnings.append(
            f"rollout.staleness={staleness} is not below iterations={config.iterations}: the first weights "
            "draw all that the run trains on."
        )
    corrected = config.rollout.old_logprobs == "engine" or any(s.corrects_staleness for s in strategies)
    apart = resolve(config.engine["_target_"], "engine").disaggregated
    if staleness > 1 and apart and not config.rollout.partial:
        warnings.append(
            f"rollout.staleness={staleness} draws no faster than 1: a rollout must be complete before the "
            "next weights come. Set 1, or rollout.partial=true."
        )
    if staleness and not corrected:
        warnings.append(
            f"rollout.staleness={staleness} trains on what older weights drew; add importance_correction to "
            "strategy=[…] to correct for it."
        )
    return warnings


def _rounding_warnings(config: Config) -> list[str]:
    if trained_dtype(config.model) == torch.float32:
        return []
    return [
        "model.dtype=bfloat16 keeps no float32 weights, and loses steps below 1/512 of a weight: AdamW's are "
        f"about update.lr={config.update.lr:g}, so weights above {512 * config.update.lr:.1g} stand still. "
        "model.dtype=auto trains them all."
    ]


def check_window(config: Config, training: bool = True) -> None:
    """Refuse completions and prompts that together exceed the model's window.

    A hub id whose config is not here yet is left for the run to judge.

    Raises:
        UsageError: says the three numbers.
    """
    try:
        window = context_window(model_config(config.model))
    except UsageError:
        return
    prompt = config.rollout.max_prompt_tokens
    beside = f" and rollout.max_prompt_tokens={prompt}" if prompt else " and a prompt"
    for key, new in _completions(config, training).items():
        if window is not None and new + (prompt or 1) > window:
            raise UsageError(
                f"{key}={new}{beside} are more than the model's window of {window} tokens "
                f"(max_position_embeddings of model.path={config.model.path}); lower them to fit."
            )


def _completions(config: Config, training: bool) -> dict[str, int]:
    """Return the most tokens of a completion, in training and in each validation set, by key."""
    longest = {"rollout.max_new_tokens": config.rollout.max_new_tokens} if training else {}
    for of in validation_sets(config) if "val" in _splits(config, training) else ():
        longest[f"{of.key}.max_new_tokens"] = of.max_new_tokens
    return longest


def check_size(config: Config, training: bool = True) -> None:
    """Refuse a model that cannot be split or adapted as asked, or whose resident state alone is too large.

    The state is a lower bound of what a run needs; `ecrl plan` counts the rest. A hub id whose config is not
    here yet is left for the loading to judge.

    Raises:
        UsageError: says the sizes.
    """
    try:
        lm = meta_model(config.model)
    except UsageError:
        if config.model.path is None:
            raise
        return
    if config.model.lora.r:
        check_targets(lm, config.model.lora)
    trainer = config.trainer
    if trainer.tensor_parallel_size > 1:
        with usage_errors("trainer."):
            check_tensor_parallel(lm, trainer.tensor_parallel_size)
    parameters = sum(p.numel() for p in lm.parameters())
    linear = sum(layer.weight.numel() for _, layer in linear_layers(lm))
    size = held_bytes(config.model, precision_of(config) == BF16, linear, parameters)
    updates = training and not config.model.lora.r  # adapters add next to nothing
    if updates:
        trained = trained_dtype(config.model)
        state = state_bytes(config.update, trained)
        size += (trained.itemsize + min(state.matrix, state.other)) * parameters
    processes = trainer.devices * trainer.num_nodes
    split = trainer.tensor_parallel_size if trainer.parallel == "ddp" else processes
    need, have = size / split, _memory(config)
    if need > have:
        what = "weights, gradients and optimizer state" if updates else "weights"
        raise UsageError(
            f"The model is too large: the {what} of its {parameters:.3g} parameters take {need / _GIB:.1f} "
            f"GiB in each process (processes={processes}, trainer.parallel={trainer.parallel}), which has "
            f"{have / _GIB:.1f} GiB; ask `ecrl plan` for what would do."
        )


def _memory(config: Config) -> float:
    """Bytes that one process has for the model's state."""
    trainer = config.trainer
    if trainer.accelerator != "cpu" and torch.cuda.is_available() and not trainer.cpu_offload:
        return float(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / trainer.devices
