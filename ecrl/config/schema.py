"""The configuration: what every key means, its type, its default and its limits. Composed by Hydra.

Nodes with a ``_target_`` (strategies, monitors, engine, parts of the objective) take their keys and
defaults from that constructor's signature, so a knob and its default live in one place: the code that
uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ecrl.config.limits import (
    LIMIT,
    CountOrAll,
    NotEmpty,
    ValidationMetric,
    WhichCheckpoint,
    choice,
    count,
    number,
)

ATTENTION = ("auto", "sdpa", "flex_attention", "varlen")
CHECKPOINTING = (False, "selective", "full")
COMPILE = ("auto", False, True)
DTYPES = ("auto", "float32", "bfloat16")
QUANTIZATIONS = ("nf4",)
ACCELERATORS = ("auto", "cpu", "gpu")
OLD_LOGPROBS = ("recompute", "engine")
PRECISIONS = ("32-true", "bf16-mixed")
PARALLEL = ("fsdp", "ddp")
SCHEDULES = ("constant", "linear", "cosine")
SHARED = ("refuse", "allow")
OVERLONG = ("drop", "truncate", "error")
ON_ERROR = ("raise", "zero")
SMALL_MODEL = "ecrl_small_model"  # in the config.json of the small model, and of what was trained from it
LONGEST_TIMEOUT = 1_000_000  # seconds; the system's clocks cannot count much further
_TARGETS = NotEmpty("an empty list adapts nothing: leave it out to adapt all linear layers")
_PATH = NotEmpty("give a directory or hub id, or leave it out")
_FILE = NotEmpty("give a file, or leave it out")


@dataclass
class LoraConfig:
    """Low-rank adapters, https://arxiv.org/abs/2106.09685.

    Attributes:
        r: rank; 0 trains the whole model.
        alpha: the adapters' product is scaled by alpha / r.
        target_modules: names of the linear layers to adapt; None adapts all but the output layer.
    """

    r: int = count(0, least=0)
    alpha: float = number(16.0, above=0)
    target_modules: list[str] | None = field(default=None, metadata={LIMIT: _TARGETS})


@dataclass
class ChatConfig:
    """How the policy reads conversations.

    Attributes:
        template: file of a Jinja chat template, for a model without one or instead of its own; ``paper`` is
            that of https://arxiv.org/abs/2505.22617 for base models.
        system: system message of conversations that have none.
        kwargs: further arguments of the template, e.g. ``{enable_thinking: false}``.
        prefill: text with which each turn of the policy begins and which it does not write itself, e.g.
            ``"<think>\\n"``.
    """

    template: str | None = field(default=None, metadata={LIMIT: _FILE})
    system: str | None = field(default=None, metadata={LIMIT: NotEmpty("write the message, or leave it out")})
    kwargs: dict[str, Any] = field(default_factory=dict)
    prefill: str = ""


@dataclass
class ModelConfig:
    """The policy.

    Attributes:
        path: directory in HF format or hub id; None builds the tiny model.
        hidden_size: width of the tiny model.
        layers: decoder layers of the tiny model.
        heads: attention heads of the tiny model.
        attention: ``sdpa`` (dense mask); on a GPU also ``flex_attention`` (sparse block mask, compiled) or
            ``varlen`` (flash attention over sequences without masks, in bfloat16; responses do not share
            their prompt). ``auto`` on a GPU takes of the last two what costs less, from batch to batch;
            elsewhere ``sdpa``.
        activation_checkpointing: what the decoder layers recompute in the backward pass: nothing (``false``);
            ``selective`` recomputes all but matrix products and attention; ``full`` keeps only each layer's
            input.
        compile: whether torch compiles the decoder layers for scoring and updates, which takes some seconds
            for each new shape of a pass; passes are padded to few. ``auto`` compiles on a GPU, except layers
            that tensor parallelism splits or that are quantised.
        dtype: type of the weights that the trainer holds. ``auto``: float32 for what is trained; a frozen
            base below adapters is held in bfloat16 where the run computes in that. ``bfloat16`` without
            adapters also trains in it, without float32 weights, and loses small updates to rounding.
            Adapters are always float32.
        quantization: ``nf4`` holds the frozen base in 4 bits, by bitsandbytes
            (https://arxiv.org/abs/2305.14314); only below adapters. None does not.
        lora: low-rank adapters.
        chat: how it reads conversations.
    """

    path: str | None = field(default=None, metadata={LIMIT: _PATH})
    hidden_size: int = count(128, least=1)
    layers: int = count(3, least=1)
    heads: int = count(4, least=1)
    attention: str = choice("auto", ATTENTION)
    activation_checkpointing: bool | str = choice(False, CHECKPOINTING)
    compile: bool | str = choice("auto", COMPILE)
    dtype: str = choice("auto", DTYPES)
    quantization: str | None = choice(None, QUANTIZATIONS)
    lora: LoraConfig = field(default_factory=LoraConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)


@dataclass
class WarmupConfig:
    """Supervised warm start on worked solutions.

    Attributes:
        steps: optimizer steps.
        batch: examples in a step.
        lr: peak learning rate; linear warm-up over the first tenth, then linear decay to 0.
        wrong: share of solutions with a wrong answer, so that RL has something to improve.
    """

    steps: int = count(500, least=1)
    batch: int = count(128, least=1)
    lr: float = number(2e-3, least=0)
    wrong: float = number(0.5, least=0, most=1, wanted="in [0, 1]")


@dataclass
class EnvConfig:
    """The task.

    Attributes:
        id: Gymnasium id.
        kwargs: keyword arguments of its constructor.
        name: name in the metrics, ``val/NAME/…``; None takes the data set's (``openai/gsm8k`` is ``gsm8k``),
            or the id's (``ecrl/Countdown-v0`` is ``countdown``).
        on_error: when the code of this environment or of a validation set raises, ``raise`` ends the run;
            ``zero`` scores the answer 0, counts it, and goes on. Either leaves prompt, response and traceback
            in the run's ``errors/``.
    """

    id: str = "ecrl/Countdown-v0"
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    on_error: str = choice("raise", ON_ERROR)


@dataclass
class RolloutConfig:
    """How an iteration draws completions.

    Attributes:
        prompts: problems per iteration.
        group_size: G, completions per problem.
        temperature: of the softmax, above 0.
        top_p: nucleus share in (0, 1]; 1 draws from the whole vocabulary.
        top_k: number of most likely tokens to draw from; 0 draws from the whole vocabulary.
        max_new_tokens: longest completion, in tokens.
        max_prompt_tokens: the most tokens that the policy reads before a turn: the prompt, and in an episode
            of several turns all that came before, which ends there as truncated. None takes what the model's
            window leaves beside ``max_new_tokens``.
        overlong_prompts: ``drop`` leaves problems with longer prompts out of training, and counts them as
            wrong in validation; ``truncate`` leaves out the middle of the prompts; ``error`` ends the run.
        old_logprobs: ``recompute`` scores the rollout with the trainer's weights wherever the engine's
            log-probs are not exactly theirs; ``engine`` takes the engine's as they are, so that the ratio π/μ
            itself corrects for engine and staleness.
        staleness: K, by how many iterations drawing runs ahead of training: iteration i trains on what
            the weights of iteration i − K drew.
        partial: whether completions that are unfinished at a weight sync go on with the new weights, so that
            up to K + 1 rollouts are drawn at once and none waits for the longest of another. What is drawn
            then depends on time.
    """

    prompts: int = count(64, least=1, most=2**20)
    group_size: int = count(8, least=1, most=65536)
    temperature: float = number(1.0, above=0, wanted="above 0 (a policy gradient needs samples)")
    top_p: float = number(1.0, above=0, most=1, wanted="in (0, 1]")
    top_k: int = count(0, least=0)
    max_new_tokens: int = count(16, least=1)
    max_prompt_tokens: int | None = count(None, least=1)
    overlong_prompts: str = choice("drop", OVERLONG)
    old_logprobs: str = choice("recompute", OLD_LOGPROBS)
    staleness: int = count(0, least=0, most=1024)
    partial: bool = False


@dataclass
class ScheduleConfig:
    """How the learning rate runs over the optimizer steps of the run, by transformers' schedulers.

    Attributes:
        name: after the warm-up ``constant``, or ``linear`` or ``cosine`` down to 0 at the last iteration.
        warmup: optimizer steps of linear warm-up from 0.
    """

    name: str = choice("constant", SCHEDULES)
    warmup: int = count(0, least=0)


@dataclass
class UpdateConfig:
    """How an iteration updates the policy.

    Attributes:
        minibatches: optimizer steps per epoch; each takes an equal share of the groups.
        epochs: passes over the rollout.
        max_tokens: most tokens in one forward pass, padding included.
        row_tokens: longest packed row, in tokens; 0 gives every sequence a row of its own; None chooses by
            the kind of attention.
        optimizer: ``_target_`` node; any torch optimizer.
        lr: its learning rate, before the schedule.
        schedule: how the learning rate changes.
        weight_decay: of the optimizer.
        grad_clip: largest global gradient norm; 0 does not clip.
    """

    minibatches: int = count(4, least=1)
    epochs: int = count(1, least=1)
    max_tokens: int = count(16384, least=1)
    row_tokens: int | None = count(None, least=0)
    optimizer: Any = None
    lr: float = number(1e-4, least=0)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    weight_decay: float = number(0.0, least=0)
    grad_clip: float = number(1.0, least=0)


@dataclass
class EvalSet:
    """One of several validation sets; what it leaves out (None) it takes from ``eval``.

    Attributes:
        env: a name of the ``env`` group, a Gymnasium id, or ``{id: …, kwargs: {…}}``; None is the training
            environment.
        kwargs: arguments of its constructor, beside those of ``env``.
        problems: number of problems, or ``all``.
        k: answers drawn per problem, beside one greedy answer.
        temperature: of the drawn answers; 0 takes the greedy answer alone.
        top_p: nucleus share of the drawn answers.
        max_new_tokens: longest answer, in tokens.
        every: iterations between its validations, a multiple of ``eval.every``.
    """

    env: Any = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    # Not `int | str | None`: OmegaConf 2.3 cannot merge a union in a dictionary of dataclasses.
    problems: Any = field(default=None, metadata={LIMIT: CountOrAll()})
    k: int | None = count(None, least=1)
    temperature: float | None = number(None, least=0)
    top_p: float | None = number(None, above=0, most=1, wanted="in (0, 1]")
    max_new_tokens: int | None = count(None, least=1)
    every: int | None = count(None, least=1)


@dataclass
class EvalConfig:
    """Validation on fixed problems that training never sees.

    Attributes:
        every: iterations between validations; 0 never validates.
        problems: number of problems; ``all`` takes each problem of a finite set, and 128 of a set without
            end.
        shared: ``refuse`` a run whose training poses problems of its validation, or ``allow`` it.
        k: answers drawn per problem, beside one greedy answer.
        temperature: of the drawn answers; 0 takes the greedy answer alone.
        top_p: nucleus share of the drawn answers.
        max_new_tokens: longest answer, in tokens; None takes ``rollout.max_new_tokens``.
        sets: validation sets by the name that their metrics carry; one that is null is left out, and without
            any the training environment is the only one.
    """

    every: int = count(10, least=0)
    problems: int | str = field(default="all", metadata={LIMIT: CountOrAll()})
    shared: str = choice("refuse", SHARED)
    k: int = count(16, least=1)
    temperature: float = number(1.0, least=0)
    top_p: float = number(1.0, above=0, most=1, wanted="in (0, 1]")
    max_new_tokens: int | None = count(None, least=1)
    sets: dict[str, EvalSet | None] = field(default_factory=dict)


@dataclass
class TrainerConfig:
    """Lightning's trainer, and how the policy is split over processes.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: processes on each node.
        num_nodes: number of nodes.
        precision: ``bf16-mixed`` computes in bfloat16 and keeps float32 weights; ``32-true`` computes all in
            float32, on a GPU too, where TF32 stays off; ``auto`` is the former on a GPU that has bfloat16,
            else the latter. A run keeps what it began with.
        parallel: how several processes hold weights, gradients and optimizer: ``fsdp`` shards them,
            ``ddp`` copies them.
        tensor_parallel_size: number of processes that share every layer.
        cpu_offload: keep the shards in host memory between uses (``fsdp`` only).
        timeout: seconds that a process or engine may be silent before the run fails.
    """

    accelerator: str = choice("auto", ACCELERATORS)
    devices: int = count(1, least=1, most=1024)
    num_nodes: int = count(1, least=1, most=65536)
    precision: str = choice("auto", ("auto", *PRECISIONS))
    parallel: str = choice("fsdp", PARALLEL)
    tensor_parallel_size: int = count(1, least=1)
    cpu_offload: bool = False
    timeout: float = number(
        1800.0, above=0, most=LONGEST_TIMEOUT, wanted=f"above 0 and at most {LONGEST_TIMEOUT} seconds"
    )


@dataclass
class CheckpointConfig:
    """Checkpoints, ``checkpoints/ITERATION``.

    Attributes:
        every: iterations between checkpoints; the last iteration always writes one.
        keep: number of last checkpoints that stay.
        keep_every: checkpoints of each iteration that this divides are written and stay for good; None keeps
            none for good.
        best: metric of the validation, higher is better; the checkpoint with its highest value stays, and a
            validation that is better than all before writes one. None keeps no best.
        load: which checkpoint of ``resume`` or ``fork`` to begin with: ``last``, ``best`` or an iteration.
            ``checkpoint=best`` is short for ``checkpoint.load=best``.
    """

    every: int = count(10, least=1)
    keep: int = count(1, least=1)
    keep_every: int | None = count(None, least=1)
    best: str | None = field(default="val/mean/avg@k", metadata={LIMIT: ValidationMetric()})
    load: str = field(default="last", metadata={LIMIT: WhichCheckpoint()})


@dataclass
class LogConfig:
    """What is shown while training.

    Attributes:
        progress: whether to draw a progress bar.
        samples: completions in each table of samples.
        samples_every: iterations between tables of samples, and between histograms.
        trace: whether the first process writes a timeline of its threads, ``trace.json`` in the run folder.
        rollouts: whether every rollout and every answer of a validation is written, a Parquet file for each
            iteration in ``rollouts/`` of the run folder.
        rollout_tokens: whether these also hold each token: ids, texts, log-probs, entropies, advantages,
            covariances, and all that ``ecrl replay`` needs. About 30 bytes a token more, beside 2. None holds
            them where all files that stay come to at most 1 GiB so.
        rollouts_keep: number of last iterations whose files stay, beside the last validation; None keeps all.
    """

    progress: bool = True
    samples: int = count(8, least=0)
    samples_every: int = count(10, least=1)
    trace: bool = False
    rollouts: bool = True
    rollout_tokens: bool | None = None
    rollouts_keep: int | None = count(500, least=1)


@dataclass
class Config:
    """A run.

    Examples:
        >>> from ecrl import load_config
        >>> load_config("seed=1").seed
        1

    Attributes:
        seed: of weights, problems and completions.
        iterations: total number of iterations, also on resume.
        run_dir: folder that the run writes; None makes a new one under ``runs/``.
        resume: run directory to resume.
        fork: run directory whose weights a new run begins with.
        output: file or folder that ``eval`` and ``warmup`` write.
        model: the policy.
        warmup: supervised warm start.
        env: the task.
        engine: ``_target_`` node; draws the completions.
        rollout: how an iteration draws completions.
        objective: ``_target_`` node; the loss.
        update: how an iteration updates the policy.
        strategy: ``_target_`` nodes by name, applied in this order.
        monitor: ``_target_`` nodes by name; they observe training and do not change it.
        logger: ``_target_`` nodes by name, Lightning loggers that get the metrics beside ``metrics.jsonl``:
            ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``, ``csv``.
        eval: validation.
        trainer: Lightning's trainer.
        checkpoint: checkpoints.
        log: what is shown while training.
    """

    seed: int = count(0, least=0, most=2**32 - 1)  # numpy takes no larger seed
    iterations: int = count(250, least=1)
    run_dir: str | None = None
    resume: str | None = None
    fork: str | None = None
    output: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    engine: Any = None
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    objective: Any = None
    update: UpdateConfig = field(default_factory=UpdateConfig)
    strategy: dict[str, Any] = field(default_factory=dict)
    monitor: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    eval: EvalConfig = field(default_factory=EvalConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
