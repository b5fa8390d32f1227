"""The policy as an ``nn.Module`` around a transformers causal LM; loading and saving it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ecrl.errors import EcrlError, UsageError
from ecrl.policy.attention import attention_inputs
from ecrl.policy.decoding import Draw, decode
from ecrl.policy.lm_head import token_stats
from ecrl.policy.packing import MicroBatch
from ecrl.policy.weights import WEIGHT_FILES, state_of, unsharded


class PolicyModel(nn.Module):
    """One root module for scoring and generation, so that FSDP wraps both.

    Args:
        lm: a transformers causal language model.
        eos_ids: token ids that end a completion.
        pad_id: token id for padding.
        attention: see the attribute.

    Attributes:
        attention: attention of scoring by transformers' name, see ``choose_attention``; generation always
            uses ``sdpa``. The model's configuration holds it also between forward and backward pass, because
            activation checkpointing runs the layers again.
        bucketed: whether passes are to be padded to few shapes, because programs are compiled for each.
        sharded: whether each forward pass is a collective over the processes of the run.
        compute_dtype: type of the run's forward passes, whatever that of the weights: bfloat16 under
            ``bf16-mixed``, by FSDP or by autocast.
        compute_device: device of the forward passes; None if it is the device of the weights.
        shipped_dtype: type that its files had; it is saved in that again.
    """

    def __init__(self, lm: PreTrainedModel, eos_ids: list[int], pad_id: int, attention: str = "sdpa") -> None:
        super().__init__()
        self.lm = lm
        without_dropout(lm)
        self.eos_ids = eos_ids
        self.pad_id = pad_id
        self.attention = attention
        self.bucketed = attention != "sdpa"
        self.sharded = False
        self.compute_dtype: torch.dtype = lm.dtype
        self.compute_device: torch.device | None = None
        self.shipped_dtype: torch.dtype = lm.dtype

    @property
    def attention(self) -> str:
        """See the class."""
        config: Any = self.lm.config
        name: str = config._attn_implementation
        return name

    @attention.setter
    def attention(self, name: str) -> None:
        config: Any = self.lm.config
        config._attn_implementation = name

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.compute_device or self.lm.device

    def forward(
        self,
        micro_batch: MicroBatch,
        temperature: float,
        measure: Callable[..., tuple[Tensor, ...]] = token_stats,
    ) -> tuple[Tensor, ...]:
        """Score the policy's own tokens of a micro-batch.

        Args:
            micro_batch: the tokens.
            temperature: divides the logits.
            measure: what to compute from the last hidden states: ``token_stats``, ``vocabulary_facts``.

        Returns:
            Log-probabilities ``[n]`` and full-vocabulary entropies ``[n]`` at the temperature, nats,
            float32, both with gradient if enabled; or what ``measure`` returns.
        """
        hidden = self._hidden(micro_batch)
        lm_head: Any = self.lm.get_output_embeddings()
        return measure(
            hidden,
            lm_head.weight,
            micro_batch.targets.to(hidden.device),
            temperature=temperature,
            bias=lm_head.bias,
        )

    def logits(self, micro_batch: MicroBatch, temperature: float) -> Tensor:
        """Compute the logits that predict the own tokens of a micro-batch: ``[n, V]``, float32.

        They are divided by the temperature. Use it for few tokens; to score many, call the model.
        """
        hidden = self._hidden(micro_batch)
        lm_head: Any = self.lm.get_output_embeddings()
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = lm_head(hidden.to(lm_head.weight.dtype))
        return logits.float() / temperature

    def _hidden(self, micro_batch: MicroBatch) -> Tensor:
        """Compute the last hidden states ``[n, D]`` that predict the own tokens."""
        device = self.device
        hidden: Tensor = self.lm.base_model(
            input_ids=micro_batch.input_ids.to(device),
            position_ids=micro_batch.position_ids.to(device),
            use_cache=False,
            **attention_inputs(micro_batch, self.attention, device, self.lm.config),
        ).last_hidden_state
        # Indexing would add up the gradients of a shared position in an order that depends on the threads.
        return hidden.flatten(0, 1).index_select(0, micro_batch.source.to(device))

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draw: Draw,
        max_new_tokens: int,
        any_left: Callable[[bool], bool] = bool,
    ) -> None:
        """Draw a completion of each prompt; see :func:`ecrl.policy.decoding.decode`."""
        # One process has room for all weights in the compute type, and casts them once.
        whole = nullcontext() if self.sharded else unsharded(self.lm)
        with self._sdpa(), whole:
            decode(
                self.lm,
                prompts,
                draw,
                max_new_tokens=max_new_tokens,
                eos_ids=self.eos_ids,
                pad_id=self.pad_id,
                device=self.device,
                any_left=any_left,
            )

    @contextmanager
    def _sdpa(self) -> Iterator[None]:
        """Use ``sdpa`` and uncompiled layers within the block, whose inputs have any shape."""
        before, self.attention = self.attention, "sdpa"
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self.attention = before

    @torch.no_grad()
    def check_head(self) -> None:
        """Compare our LM head with the model's own logits on two tokens.

        Raises:
            UsageError: the model changes its logits after the linear LM head (by a scale or a soft cap),
                so ``token_stats`` would return wrong log-probabilities.
        """
        ids = torch.tensor([[self.pad_id, self.eos_ids[0]]], device=self.device)
        with self._sdpa():
            logits = self.lm(input_ids=ids, use_cache=False).logits[0]
            hidden = self.lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        lm_head: Any = self.lm.get_output_embeddings()
        expected = torch.log_softmax(logits.float(), -1)[:, 0]
        got, _ = token_stats(hidden, lm_head.weight, torch.zeros_like(ids[0]), bias=lm_head.bias)
        # The model rounds its logits to their type, ours stay float32: the difference is at most twice that.
        rounding = 0.0 if logits.dtype == torch.float32 else torch.finfo(logits.dtype).eps
        if not (expected - got).abs().max() <= 1e-3 + rounding * logits.abs().max():
            raise UsageError(
                f"{type(self.lm).__name__} post-processes its logits (a scale or a soft cap), which is not "
                "supported; use a model with a plain linear head (Qwen, Llama, Mistral, …)."
            )


def without_dropout(lm: nn.Module) -> None:
    """Set every dropout rate to 0, in place.

    A policy must give the same log-probs when it is sampled, scored and updated: with dropout the importance
    ratio of the very first update is not 1.
    """
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):  # rates that attention layers pass to a function
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory or hub id.

    Raises:
        UsageError: there is no tokenizer, or it has no end-of-sequence token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No tokenizer could be loaded from model.path={path!r}: {_first_line(error)}"
        ) from None
    if tokenizer.eos_token_id is None:
        raise UsageError(
            f"The tokenizer in model.path={path!r} has no EOS token, so completions could never end; "
            "set `eos_token` in its tokenizer_config.json."
        )
    return tokenizer


def load_config(path: str) -> Any:
    """Load a model's configuration from a directory or hub id.

    Raises:
        UsageError: there is no model, or it does not take text alone.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No causal LM could be loaded from model.path={path!r}: {_first_line(error)}"
        ) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(
            f"model.path={path!r} is of type {config.model_type!r}, for which transformers has no causal LM. "
            "Models that also take pictures or sound cannot be trained; choose one that takes text alone."
        )
    return config


def shipped_dtype(config: Any) -> torch.dtype:
    """Return the type of a model's files; float32 where its configuration does not say."""
    dtype = getattr(config, "dtype", None) or torch.float32
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def load_policy(
    path: str, tokenizer: PreTrainedTokenizerBase, held: torch.dtype = torch.float32
) -> PolicyModel:
    """Load a causal LM from a directory or hub id, with weights of the type ``held``.

    Raises:
        UsageError: there is no model.
    """
    config = load_config(path)
    dtype = shipped_dtype(config)
    try:
        lm = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=held, trust_remote_code=False)
    except (OSError, ValueError, UnpicklingError) as error:
        raise UsageError(
            f"No causal LM could be loaded from model.path={path!r}: {_first_line(error)}"
        ) from None
    policy = as_policy(lm, tokenizer)
    policy.shipped_dtype = dtype
    return policy


def empty_policy(
    path: str, tokenizer: PreTrainedTokenizerBase, held: torch.dtype = torch.float32
) -> PolicyModel:
    """Build the model of a directory or hub id with parameters on the meta device and real buffers.

    Raises:
        UsageError: there is no model.
    """
    config, shipped = load_config(path), _shipped_generation_config(path)
    dtype = shipped_dtype(config)
    with init_empty_weights(include_buffers=False):
        lm = AutoModelForCausalLM.from_config(config, dtype=held, trust_remote_code=False)
    lm.tie_weights()
    if shipped is not None:
        lm.generation_config = shipped
    policy = as_policy(lm, tokenizer)
    policy.shipped_dtype = dtype
    return policy


def as_policy(lm: Any, tokenizer: PreTrainedTokenizerBase) -> PolicyModel:
    """Wrap a transformers model; completions end at the tokenizer's and the model's EOS tokens."""
    eos = {int(tokenizer.eos_token_id)}
    shipped = lm.generation_config.eos_token_id if lm.generation_config else None
    eos |= set(shipped if isinstance(shipped, list) else [] if shipped is None else [shipped])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return PolicyModel(lm, sorted(eos), int(pad))


def save_policy(
    model: PolicyModel, tokenizer: PreTrainedTokenizerBase, path: Path, write: bool = True
) -> None:
    """Write an HF-format directory that ``AutoModelForCausalLM`` loads, with adapters merged.

    The weights are rounded to the type that the model's own files had.

    Every process of a sharded run must call this.

    Args:
        model: the policy.
        tokenizer: the policy's tokenizer.
        path: the directory to write.
        write: whether this process writes.

    Raises:
        EcrlError: the directory cannot be written.
    """
    state = state_of(model.lm, model.device, keep=write)
    if not write:
        return
    dtype, config = model.shipped_dtype, deepcopy(model.lm.config)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    try:
        model.lm.save_pretrained(path, state_dict=state)
        config.dtype, config.architectures = dtype, [type(model.lm).__name__]
        config.save_pretrained(path)  # transformers has written the type that the model is trained in
        tokenizer.save_pretrained(path)
    except (OSError, SafetensorError) as error:
        raise EcrlError(f"The policy could not be written to {path}: {_first_line(error)}.") from None


def check_model(path: str) -> None:
    """Check that a path can be a model, before anything is loaded or written.

    Raises:
        UsageError: the path does not exist, or is a directory without tokenizer, config or weights.
    """
    folder = Path(path)
    if folder.is_dir():
        needed = {
            "tokenizer": ("tokenizer_config.json",),
            "model": ("config.json",),
            "weights": WEIGHT_FILES,
        }
        for what, patterns in needed.items():
            if not any(file for pattern in patterns for file in folder.glob(pattern)):
                wanted = " or ".join(patterns)
                found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
                raise UsageError(f"model.path={path!r} holds no {what} ({wanted} is missing; found {found}).")
    elif path.count("/") != 1 or path.startswith((".", "/", "~")):
        # Only a name like `org/model` can be a hub id; anything that looks like a path must exist.
        raise UsageError(f"model.path={path!r} does not exist; give a directory in HF format or a hub id.")


def _shipped_generation_config(path: str) -> GenerationConfig | None:
    """Read ``generation_config.json``, which is optional."""
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:
        return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
