"""Memory of each GPU, by part, in bytes.

The formulas count the tensors that the implementation keeps: transformers' Qwen2 and Llama layers under
autograd, FSDP2 with reductions in float32, weights in the types of ``ecrl.policy.weight_types``, the
optimizer's state, and the LM head of ``ecrl.policy.lm_head``.
"""

from __future__ import annotations

from ecrl.estimate.architecture import Architecture
from ecrl.estimate.job import ENGINE_SHARE, Job
from ecrl.policy.lm_head.tiles import CPU_TILE, GPU_TILE

GIB = 2**30
FULL = 4  # bytes of float32
HALF = 2  # bytes of bfloat16
RESERVE = 0.08  # share of the GPU for the CUDA context, NCCL and fragmentation
ENGINE_RESERVE = 2 * GIB  # vLLM's activations and CUDA graphs

Parts = dict[str, float]


def layer_activation_bytes(
    model: Architecture,
    tokens: int,
    compute: int,
    stream: int,
    tensor_parallel: int = 1,
    checkpointing: bool | str = False,
) -> float:
    """Bytes that one decoder layer saves for its backward pass.

    For each token, both norms save their input in float32, the normalised input and the scaled input;
    attention saves queries, keys, values, output, and a float32 logsumexp per head; the MLP saves the gate,
    its SiLU, the up projection, and their product. ``full`` checkpointing saves only the layer's input;
    ``selective`` also the results of its seven matrix products and of attention.

    Args:
        model: the architecture.
        tokens: number of tokens in the forward pass.
        compute: bytes of a number in matrix products.
        stream: bytes of a number in the residual stream.
        tensor_parallel: number of GPUs that split heads and MLP.
        checkpointing: ``model.activation_checkpointing``.
    """
    if checkpointing == "full":
        return tokens * model.hidden * stream
    attention = 2 * (model.heads + model.kv_heads) * model.head_dim * compute + FULL * model.heads
    if checkpointing == "selective":
        mlp = 2 * model.intermediate * compute
        return tokens * (model.hidden * (stream + 2 * compute) + (attention + mlp) / tensor_parallel)
    norms = 2 * model.hidden * (FULL + stream + compute)
    mlp = 4 * model.intermediate * compute
    return tokens * (norms + (attention + mlp) / tensor_parallel)


def layer_transient_bytes(model: Architecture, tokens: int, compute: int, tensor_parallel: int = 1) -> float:
    """Bytes of temporary gradients in one layer's backward pass: three in the MLP, and one weight's.

    Args:
        model: the architecture.
        tokens: number of tokens in the forward pass.
        compute: bytes of a number.
        tensor_parallel: number of GPUs that split the layer.
    """
    return compute * model.intermediate * (3 * tokens + model.hidden) / tensor_parallel


def head_bytes(
    model: Architecture, tokens: int, compute: int, tile: int, tensor_parallel: int = 1, trained: bool = True
) -> float:
    """Bytes that the LM head holds during its backward pass; the logits exist only tile by tile.

    Two float32 tiles (in bfloat16 also the tiles of a product and of an operand), the hidden states and
    their float32 gradient, and the weight's gradient before it is added to the parameter's.

    Args:
        model: the architecture.
        tokens: number of tokens, all of them scored.
        compute: bytes of a number in matrix products.
        tile: elements of a tile.
        tensor_parallel: number of GPUs that split the vocabulary.
        trained: whether the LM head's weight gets a gradient.
    """
    tile = min(tile, tokens * model.vocabulary)
    tiles = tile * (2 * FULL if compute == FULL else 3 * FULL + HALF)
    states = tokens * model.hidden * (2 * compute + FULL)
    return tiles + states + trained * model.head_parameters * compute / tensor_parallel


def kv_bytes_per_token(model: Architecture, size: int = HALF, split: int = 1) -> int:
    """Bytes of the keys and values of one token in all layers, on one GPU.

    Args:
        model: the architecture.
        size: bytes of a number.
        split: number of GPUs that divide the heads; with more GPUs than heads some hold the same head.
    """
    return 2 * model.layers * -(-model.kv_heads // split) * model.head_dim * size


def resident(job: Job) -> Parts:
    """State that stays on a GPU between iterations; nothing if FSDP keeps it in host memory."""
    if job.offloads:
        return {}
    return host_or_gpu_state(job)


def host_or_gpu_state(job: Job) -> Parts:
    """One process's share of weights, gradients and the optimizer's state, on the GPU or the host."""
    split = job.tensor_parallel * job.shards
    trained, frozen = job.trained_bytes / split, job.frozen_bytes / split
    parts = {"weights": trained + frozen, "gradients": trained, "optimizer": job.optimizer_bytes / split}
    if job.auxiliary_models:
        parts["auxiliary models"] = job.auxiliary_models * (4 * trained + frozen)
    if job.has_reference and not job.config.model.lora.r:  # adapters are left out instead
        parts["reference weights"] = job.held_bytes / split
    return parts


def moments(job: Job) -> dict[str, Parts]:
    """What each GPU holds at the moments of an iteration that may need the most memory.

    Updates are counted at their second micro-batch, when all gradients exist.
    """
    found = {
        "head": _head_moment(job),
        "layers": _layer_moment(job),
        "reduction": _reduction_moment(job),
        "rollout": _rollout_moment(job),
    }
    return {name: resident(job) | parts for name, parts in found.items()}


def reserve(job: Job) -> float:
    """Bytes left free on each GPU for the CUDA context, NCCL and fragmentation."""
    return RESERVE * job.given.memory * GIB


def concurrent(job: Job, length: float) -> int:
    """Number of sequences of ``length`` tokens that the KV cache of one engine holds at once."""
    cache = engine_parts(job)["KV cache"]
    return int(cache // (length * kv_bytes_per_token(job.model, job.engine_bytes, job.engine_gpus)))


def _rollout_moment(job: Job) -> Parts:
    """The engine generates completions."""
    if job.disaggregated:
        return {}
    return _shared_weights_parts(job) if job.shares_weights else engine_parts(job)


def _shared_weights_parts(job: Job) -> Parts:
    """The trainer's own weights generate a full batch of the longest completions."""
    together = min(job.batch_size, -(-job.completions // job.replicas))
    # The sampler holds float32 logits, probabilities and their cumulative sum.
    logits = 3 * FULL * together * job.model.vocabulary
    cache = together * job.longest * kv_bytes_per_token(job.model, job.compute_bytes)
    return _gathered(job, 0) | {"KV cache": cache, "logits": logits}


def engine_parts(job: Job) -> Parts:
    """What vLLM takes of a GPU: its share, or the configured size of KV cache."""
    engine = job.config.engine
    weights = job.engine_bytes * job.model.parameters / job.engine_gpus
    share = engine.get("gpu_memory_utilization", ENGINE_SHARE) * job.given.memory * GIB
    configured = engine.get("kv_cache_gib")
    cache = configured * GIB if configured is not None else share - weights - ENGINE_RESERVE
    # vLLM does not start unless one longest completion fits.
    least = job.longest * kv_bytes_per_token(job.model, job.engine_bytes, job.engine_gpus)
    return {
        "vLLM weights": float(weights),
        "vLLM working memory": float(ENGINE_RESERVE),
        "KV cache": float(max(cache, least)),
    }


def _head_moment(job: Job) -> Parts:
    """The backward pass begins with the LM head: all saved activations exist."""
    tile = CPU_TILE if job.config.trainer.accelerator == "cpu" else GPU_TILE
    tokens = job.config.update.max_tokens
    head = head_bytes(
        job.model, tokens, job.compute_bytes, tile, job.tensor_parallel, not job.config.model.lora.r
    )
    return _gathered(job, 0) | {"activations": _saved(job), "logits": head}


def _layer_moment(job: Job) -> Parts:
    """The last layer's backward pass; under checkpointing its activations are recomputed first."""
    transient = layer_transient_bytes(
        job.model, job.config.update.max_tokens, job.compute_bytes, job.tensor_parallel
    )
    again = _saved_by_layer(job, False) - _saved_by_layer(job, job.config.model.activation_checkpointing)
    return _gathered(job, job.model.head_parameters) | {"activations": _saved(job) + transient + again}


def _reduction_moment(job: Job) -> Parts:
    """FSDP reduces the root module's gradients last: unsharded in bfloat16, and a float32 copy."""
    if not job.uses_fsdp or job.config.model.lora.r:
        return {}
    root = job.model.root_parameters / job.tensor_parallel
    return {"gathered layers": root * (2 * job.compute_bytes + FULL)}


def _saved(job: Job) -> float:
    """Bytes that all layers save in the forward pass of one micro-batch."""
    return job.model.layers * _saved_by_layer(job, job.config.model.activation_checkpointing)


def _saved_by_layer(job: Job, checkpointing: bool | str) -> float:
    return layer_activation_bytes(
        job.model,
        job.config.update.max_tokens,
        job.compute_bytes,
        job.stream_bytes,
        job.tensor_parallel,
        checkpointing,
    )


def _gathered(job: Job, root_gradient: int) -> Parts:
    """Unsharded weights in the compute type, and unsharded gradients before their reduction.

    FSDP2 gathers the root module, the current layer and the next. Without FSDP, autocast casts trained
    float32 weights once per pass. A quantised matrix is written out while it multiplies.

    Args:
        job: the run.
        root_gradient: elements of the root module's gradient that wait for its reduction.
    """
    model, compute, lora = job.model, job.compute_bytes, job.config.model.lora.r
    if job.uses_fsdp:
        weights = compute * (model.root_parameters + 2 * model.layer_parameters)
        waiting = 0 if lora else compute * root_gradient + (compute + FULL) * model.layer_parameters
        return {"gathered layers": (weights + waiting) / job.tensor_parallel}
    if job.casts_trained:
        copies = HALF * model.layers * model.layer_parameters / job.tensor_parallel
        return {"bfloat16 copies": copies}
    if job.config.model.quantization:
        return {"dequantised matrix": float(compute * model.largest_matrix)}
    return {}
