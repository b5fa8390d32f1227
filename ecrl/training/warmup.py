"""Supervised warm start: teaches a model what answers look like, right and wrong ones.

RL on verifiable rewards needs a base that sometimes succeeds. Worked solutions come from the
environment itself; a share of them answers something else, so that the base knows the form but is
right only sometimes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.config.schema import Config
from ecrl.envs.base import ReasoningEnv, item_seed
from ecrl.envs.safe_calls import as_text, env_id, make, reset, user_code
from ecrl.errors import UsageError, usage_errors
from ecrl.policy.attention import row_limit
from ecrl.policy.model import PolicyModel, check_model, load_policy, load_tokenizer, save_policy
from ecrl.policy.packing import pack_micro_batches
from ecrl.policy.tiny_model import build_model, build_tokenizer
from ecrl.rollout.chat import Chat, set_template
from ecrl.runs.cache import cache_folder, make_whole
from ecrl.runs.versions import version_of

_STREAM = 7  # Keeps warm-start problems apart from a run's own seeds.


def cached_base(config: Config, progress: Callable[[int, int, float], None] | None = None) -> Path:
    """Return the tiny base for this configuration, made at first use and kept in the cache.

    The cache is ``$ECRL_CACHE`` or ``~/.cache/ecrl``; its key holds all that the result depends on.
    """
    key = {
        "ecrl": version_of("ecrl"),
        "torch": torch.__version__,
        "seed": config.seed,
        "model": [config.model.path, config.model.hidden_size, config.model.layers, config.model.heads],
        **{name: asdict(getattr(config, name)) for name in ("env", "warmup")},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    target = cache_folder() / f"base-{digest}"
    if not target.exists():
        make_base(config, target, progress)
    return target


def make_base(
    config: Config, target: Path, progress: Callable[[int, int, float], None] | None = None
) -> None:
    """Warm up the configured model and write it to ``target``, aside first, then moved into place."""
    if config.model.path is None:
        tokenizer: PreTrainedTokenizerBase = build_tokenizer()
        lm: Any = build_model(config.model, build_tokenizer(), config.seed)
        model = PolicyModel(lm, [int(tokenizer.eos_token_id)], int(tokenizer.pad_token_id))
    else:
        check_model(config.model.path)
        tokenizer = load_tokenizer(config.model.path)
        set_template(tokenizer, config.model.chat)
        model = load_policy(config.model.path, tokenizer)
    warm_up(model, tokenizer, config, progress)
    make_whole(target, lambda folder: save_policy(model, tokenizer, folder))


def warm_up(
    model: PolicyModel,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Train on worked solutions by maximum likelihood of the response tokens, in place."""
    settings = config.warmup
    examples = worked_solutions(config, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.0)
    ramp = max(settings.steps // 10, 1)
    model.train()
    for step in range(settings.steps):
        left = (settings.steps - step) / max(settings.steps - ramp, 1)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min((step + 1) / ramp, left, 1.0)
        batch = [next(examples) for _ in range(settings.batch)]
        tokens = sum(sum(example.own) for example in batch)
        optimizer.zero_grad()
        total = 0.0
        row_tokens = row_limit(model.attention, config.update.max_tokens, config.update.row_tokens)
        with usage_errors("update."):
            micro_batches = pack_micro_batches(batch, config.update.max_tokens, row_tokens)
        for micro_batch in micro_batches:
            logprobs, _ = model(micro_batch, 1.0)
            loss = -logprobs.sum() / tokens
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress:
            progress(step + 1, settings.steps, total)


def worked_solutions(config: Config, tokenizer: PreTrainedTokenizerBase) -> Iterator[SequenceTokens]:
    """Yield training problems with worked solutions, forever.

    Raises:
        UsageError: the environment writes none.
    """
    env = make(config.env.id, "train", dict(config.env.kwargs)).unwrapped
    if not isinstance(env, ReasoningEnv) or type(env).solution is ReasoningEnv.solution:
        raise UsageError(
            f"{config.env.id} has no worked solutions (`solution`), so a warm start cannot learn from it; "
            "give a model with model.path=…"
        )
    chat = Chat(tokenizer, config.model.chat)  # as rollouts render a prompt
    rng = np.random.default_rng([config.seed, _STREAM])
    index = 0
    while True:
        prompt, info = reset(env, seed=item_seed(config.seed + (_STREAM << 32), index))
        correct = bool(rng.random() >= config.warmup.wrong)
        try:
            with user_code(f"{env_id(env)}.solution", but=(NotImplementedError,)):
                solution = as_text(env.solution(info["problem"], rng, correct=correct), "solution")
        except NotImplementedError as why:
            raise UsageError(
                f"A warm start needs worked solutions. {why} Or give a model: model.path=…"
            ) from None
        tail = [*tokenizer(solution, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        opening = chat.opening(chat.text(prompt, info.get("messages", ())))
        yield SequenceTokens(opening, tail, [True] * len(tail))
        index += 1
