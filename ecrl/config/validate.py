"""Refuses settings that cannot work, before anything is loaded or written.

The limits of a single field stand beside it in ``schema``; here are the rules that join several fields.
"""

from __future__ import annotations

import re

from ecrl.config.eval_sets import VALIDATION_MEAN, validation_sets
from ecrl.config.limits import check_limits
from ecrl.config.schema import Config
from ecrl.errors import UsageError

#: What a validation set cannot be called: the mean over the sets has one name, training the other.
_NAMES_TAKEN = ("mean", "train")


def check_values(config: Config) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        UsageError: says which key, what it got and what it takes.
    """
    check_limits(config)
    for rule in _RULES:
        rule(config)


def _a_pass_holds_a_sequence(config: Config) -> None:
    new, prompt = config.rollout.max_new_tokens, config.rollout.max_prompt_tokens
    if config.update.max_tokens < new + (prompt or 1):
        a_prompt = f"a prompt of up to {prompt}" if prompt else "a prompt"
        raise UsageError(
            f"update.max_tokens={config.update.max_tokens} cannot hold one sequence of up to "
            f"{new} new tokens and {a_prompt}; raise it."
        )


def _a_minibatch_holds_a_group(config: Config) -> None:
    if config.update.minibatches > config.rollout.prompts:
        raise UsageError(
            f"update.minibatches={config.update.minibatches} is more than rollout.prompts="
            f"{config.rollout.prompts}; a minibatch holds at least one group."
        )


def _sparse_attention_has_a_gpu(config: Config) -> None:
    attention = config.model.attention
    if attention in ("flex_attention", "varlen") and config.trainer.accelerator == "cpu":
        raise UsageError(f"model.attention={attention} trains on a GPU only; use sdpa on a CPU.")


def _varlen_attention_has_16_bits(config: Config) -> None:
    if config.model.attention == "varlen" and config.trainer.precision == "32-true":
        raise UsageError(
            "model.attention=varlen computes in bfloat16; set trainer.precision=bf16-mixed, or "
            "model.attention=auto."
        )


def _tensor_parallel_size_divides_the_processes(config: Config) -> None:
    size = config.trainer.tensor_parallel_size
    if _processes(config) % size:
        raise UsageError(
            f"trainer.tensor_parallel_size={size} does not divide the {_processes(config)} processes "
            "(trainer.devices × trainer.num_nodes)."
        )


def _split_layers_are_not_compiled(config: Config) -> None:
    if config.trainer.tensor_parallel_size > 1 and config.model.compile is True:
        raise UsageError(
            "model.compile=true with trainer.tensor_parallel_size above 1 is not supported; leave one out."
        )


def _adapters_are_not_split(config: Config) -> None:
    if config.trainer.tensor_parallel_size > 1 and config.model.lora.r:
        raise UsageError(
            "model.lora.r with trainer.tensor_parallel_size above 1 is not supported; trainer=fsdp alone "
            "shards adapters and base as well."
        )


def _bfloat16_weights_compute_in_it(config: Config) -> None:
    if config.model.dtype == "bfloat16" and config.trainer.precision == "32-true":
        raise UsageError(
            "model.dtype=bfloat16 computes in bfloat16 too; set trainer.precision=bf16-mixed, or "
            "model.dtype=auto."
        )


def _quantised_weights_are_frozen(config: Config) -> None:
    if config.model.quantization and not config.model.lora.r:
        raise UsageError(
            f"model.quantization={config.model.quantization} freezes the model's weights; give adapters to "
            "train, model.lora.r=16, or leave it out."
        )


def _quantised_weights_are_not_sharded(config: Config) -> None:
    if config.model.quantization and _processes(config) > 1 and config.trainer.parallel == "fsdp":
        raise UsageError(
            f"model.quantization={config.model.quantization} cannot be sharded: with several processes set "
            "trainer.parallel=ddp, which keeps a copy on every GPU, or leave it out."
        )


def _only_shards_are_offloaded(config: Config) -> None:
    if config.trainer.cpu_offload and (_processes(config) == 1 or config.trainer.parallel == "ddp"):
        raise UsageError("trainer.cpu_offload=true needs trainer.parallel=fsdp and more than one process.")


def _validation_sets_work(config: Config) -> None:
    for name in config.eval.sets:
        if not re.fullmatch(r"[\w-]+", name) or name in _NAMES_TAKEN:
            raise UsageError(
                f"eval.sets: {name!r} cannot name a set; take letters, digits, _ and -, and none of "
                f"{', '.join(_NAMES_TAKEN)}."
            )
    for of in validation_sets(config):
        if of.temperature == 0 and of.k > 1:
            raise UsageError(
                f"{of.key}.temperature=0 draws the greedy answer, and k={of.k} of it are the same; set "
                f"{of.key}.k=1, or a temperature above 0."
            )
        if config.eval.every and of.every % config.eval.every:
            raise UsageError(
                f"{of.key}.every={of.every} is no multiple of eval.every={config.eval.every}, the iterations "
                "between validations."
            )


def _the_best_is_of_a_validation(config: Config) -> None:
    best, names = config.checkpoint.best, [of.name for of in validation_sets(config)]
    of = re.fullmatch(r"val/([^/]+)/.+", best or "val/mean/avg@k")
    if of is None or of[1] not in ("mean", *names):
        raise UsageError(
            f"checkpoint.best={best} is no metric of a validation set; take {VALIDATION_MEAN}, or "
            f"val/SET/METRIC with one of the sets {', '.join(names)}."
        )


def _a_new_run_loads_no_checkpoint(config: Config) -> None:
    if config.checkpoint.load != "last" and config.resume is None and config.fork is None:
        raise UsageError(
            f"checkpoint={config.checkpoint.load} says which checkpoint resume=RUN or fork=RUN begins with; "
            "give one of these too."
        )


def _tokens_are_of_rollouts(config: Config) -> None:
    if config.log.rollout_tokens and not config.log.rollouts:
        raise UsageError("log.rollout_tokens=true needs log.rollouts=true; its tokens are written with them.")


def _processes(config: Config) -> int:
    return config.trainer.devices * config.trainer.num_nodes


_RULES = (
    _a_pass_holds_a_sequence,
    _a_minibatch_holds_a_group,
    _sparse_attention_has_a_gpu,
    _varlen_attention_has_16_bits,
    _tensor_parallel_size_divides_the_processes,
    _split_layers_are_not_compiled,
    _adapters_are_not_split,
    _bfloat16_weights_compute_in_it,
    _quantised_weights_are_frozen,
    _quantised_weights_are_not_sharded,
    _only_shards_are_offloaded,
    _validation_sets_work,
    _the_best_is_of_a_validation,
    _a_new_run_loads_no_checkpoint,
    _tokens_are_of_rollouts,
)
