"""The configuration: what every key means, its type and its default. Composed by Hydra.

Nodes with a ``_target_`` (strategies, engine, parts of the objective) take their keys and defaults
from that constructor's signature, so a knob and its default live in one place: the code that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LoraConfig:
    """Low-rank adapters, https://arxiv.org/abs/2106.09685.

    Attributes:
        r: rank; 0 trains the whole model.
        alpha: the adapters' product is scaled by alpha / r.
        target_modules: names of the linear layers to adapt; None takes all but the head.
    """

    r: int = 0
    alpha: float = 16.0
    target_modules: list[str] | None = None


@dataclass
class ModelConfig:
    """The policy.

    Attributes:
        path: directory in HF format or hub id; None builds the small tiny model.
        hidden_size: width of the tiny model.
        layers: decoder layers of the tiny model.
        heads: attention heads of the tiny model.
        attention: ``sdpa`` (dense block mask), ``flex_attention`` (sparse block mask, compiled on GPU), or
            ``auto``, which takes the latter on a GPU.
        activation_checkpointing: keep only the borders of the decoder layers for the backward pass.
        lora: adapters.
    """

    path: str | None = None
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    attention: str = "auto"
    activation_checkpointing: bool = False
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class WarmupConfig:
    """Supervised warm start on worked solutions.

    Attributes:
        steps: optimizer steps.
        batch: examples a step.
        lr: peak learning rate; linear warm-up over the first tenth, then linear decay to 0.
        wrong: share of solutions that answer something else, so that RL has something to do.
    """

    steps: int = 500
    batch: int = 128
    lr: float = 2e-3
    wrong: float = 0.5


@dataclass
class EnvConfig:
    """The task: a Gymnasium id and the keyword arguments of its constructor."""

    id: str = "ecrl/Countdown-v0"
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class RolloutConfig:
    """What one iteration draws.

    Attributes:
        prompts: problems an iteration.
        group_size: G, completions a problem.
        temperature: of the softmax, > 0.
        top_p: nucleus share in (0, 1].
        max_new_tokens: limit of a completion, in tokens.
        staleness: K, iterations that drawing runs ahead of training: iteration i trains on what the
            weights of iteration i − K drew.
    """

    prompts: int = 64
    group_size: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 16
    staleness: int = 0


@dataclass
class UpdateConfig:
    """What one iteration does with it.

    Attributes:
        minibatches: optimizer steps an epoch; each takes an equal share of the groups.
        epochs: passes over the rollout.
        max_tokens: most tokens in one forward pass, padding included.
        row_tokens: longest packed row, in tokens; 0 puts every sequence in a row of its own; None takes what
            suits the kind of attention.
        lr: AdamW's learning rate, constant.
        weight_decay: AdamW's.
        grad_clip: bound of the global gradient norm; 0 for none.
    """

    minibatches: int = 4
    epochs: int = 1
    max_tokens: int = 16384
    row_tokens: int | None = None
    lr: float = 1e-4
    weight_decay: float = 0.0
    grad_clip: float = 1.0


@dataclass
class EvalConfig:
    """Validation on fixed problems that training never sees.

    Attributes:
        every: iterations between validations; 0 never validates.
        problems: how many problems.
        k: answers a problem.
        temperature: of those answers; one more answer is greedy.
    """

    every: int = 10
    problems: int = 128
    k: int = 16
    temperature: float = 1.0


@dataclass
class TrainerConfig:
    """Lightning's trainer, and how the policy is spread over processes.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: processes on each node.
        num_nodes: nodes.
        precision: ``32-true``; ``bf16-mixed`` computes in bfloat16 and keeps float32 weights.
        parallel: what several processes do with weights, gradients and optimizer: ``fsdp`` shards
            them, ``ddp`` copies them.
        tensor_parallel_size: processes that split every layer among them.
        cpu_offload: keep the shards in host memory between uses (``fsdp`` only).
        timeout: seconds after which a silent process or engine is an error.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    parallel: str = "fsdp"
    tensor_parallel_size: int = 1
    cpu_offload: bool = False
    timeout: float = 1800.0


@dataclass
class CheckpointConfig:
    """Checkpoints.

    Attributes:
        every: iterations between checkpoints; the last iteration always leaves one.
    """

    every: int = 10


@dataclass
class LogConfig:
    """What is shown.

    Attributes:
        progress: draw a progress bar.
        samples: completions in each sample table.
        samples_every: iterations between sample tables and histograms.
    """

    progress: bool = True
    samples: int = 8
    samples_every: int = 10


@dataclass
class Config:
    """A run.

        >>> from ecrl import load_config
        >>> load_config("seed=1").seed
        1

    Attributes:
        seed: of weights, problems and completions.
        iterations: total number of iterations, also on resume.
        run_dir: where everything goes; None makes a new folder under ``runs/``.
        resume: run directory to go on from.
        output: file or folder that ``eval`` and ``warmup`` write.
    """

    seed: int = 0
    iterations: int = 250
    run_dir: str | None = None
    resume: str | None = None
    output: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    engine: Any = None
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    objective: Any = None
    update: UpdateConfig = field(default_factory=UpdateConfig)
    strategy: dict[str, Any] = field(default_factory=dict)
    eval: EvalConfig = field(default_factory=EvalConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
