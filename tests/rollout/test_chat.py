"""Token ids end to end, over merges, Unicode and chat templates; the engine is a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from ecrl.config.schema import ChatConfig, ModelConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling
from ecrl.engines.hf import HFEngine
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import as_policy
from ecrl.policy.tiny_model import build_model
from ecrl.rollout.chat import Chat, set_template
from ecrl.rollout.collector import Collector
from ecrl.rollout.trajectory import Trajectory

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["higher lower the answer is 12 123 1234", "ab aba abab ababa", "né naïve 日本語 🙂🙂 \n\n  \t"] * 8


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with merges, learnt from a few lines."""
    learnt = Tokenizer(BPE())
    learnt.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    learnt.decoder = ByteLevelDecoder()  # type: ignore[assignment]
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    learnt.train_from_iterator(
        CORPUS, BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet())
    )
    made = PreTrainedTokenizerFast(tokenizer_object=learnt, pad_token="<|pad|>", eos_token="<|im_end|>")
    made.chat_template = template
    return made


class Says(gym.Env[str, str]):
    """Says given messages, one a turn, whatever it hears."""

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = list(messages)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return self.messages[0], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        done = self.turn == len(self.messages)
        return "" if done else self.messages[self.turn], 0.0, done, False, {}


class Watched(HFEngine):
    """The engine, which also keeps what it was given and what it gave."""

    seen: list[tuple[list[int], Completion]]

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        made = super().draw(prompts, sampling, keys)
        self.seen += [(list(p), c) for p, c in zip(prompts, made, strict=True)]
        return made


TOKENIZERS = {"plain": make_tokenizer(None), "chat": make_tokenizer(CHATML)}
ENGINES: dict[str, Watched] = {}


def engine(kind: str) -> Watched:
    if kind not in ENGINES:
        tokenizer: Any = TOKENIZERS[kind]
        model = build_model(ModelConfig(hidden_size=32, layers=2, heads=2), tokenizer, seed=0)
        with torch.no_grad():  # a random policy that ends some of its turns
            model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 60
        ENGINES[kind] = Watched(as_policy(model, tokenizer), ProcessGroup())
    ENGINES[kind].seen = []
    return ENGINES[kind]


def play(kind: str, messages: Sequence[str], seed: int) -> tuple[Watched, Trajectory]:
    watched = engine(kind)
    source = Collector(lambda split: Says(messages), watched, Chat(TOKENIZERS[kind]), seed=seed)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=6)
    return watched, source.collect("train", [0], 1, sampling, 0, MetricsRecorder())[0]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_the_joined_ids_are_what_the_engine_saw(kind: str, messages: list[str], seed: int) -> None:
    watched, trajectory = play(kind, messages, seed)
    assert len(watched.seen) == len(trajectory.turns) == len(messages)
    joined = list(trajectory.prompt_ids)
    for turn, (prompt, completion) in zip(trajectory.turns, watched.seen, strict=True):
        joined += turn.context_ids
        assert prompt == joined
        assert turn.completion.token_ids == completion.token_ids
        joined += completion.token_ids


@settings(max_examples=60, deadline=None)
@given(message=st.text(max_size=20), said=st.text(max_size=8), ended=st.booleans())
@example(message="", said="<", ended=False)  # the first character of the end-of-turn token
def test_a_chat_is_what_the_template_writes(message: str, said: str, ended: bool) -> None:
    tokenizer = TOKENIZERS["chat"]
    dialogue = Chat(tokenizer)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * ended
    reply = dialogue.reply(tokenizer.eos_token_id if ended else None, message)
    whole = dialogue.opening(dialogue.text("p")) + ids + reply
    turns = [("user", "p"), ("assistant", said), ("user", message)]
    wanted = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(whole) == tokenizer.decode(
        tokenizer(wanted, add_special_tokens=False)["input_ids"]
    )


def test_a_border_may_be_where_the_tokenizer_would_merge() -> None:
    dialogue, tokenizer = Chat(TOKENIZERS["plain"]), TOKENIZERS["plain"]
    one, two, both = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("1", "2", "12"))
    assert dialogue.reply(None, "2") == two
    # So the ids that were drawn are not those of the joined text, and may not be made of it.
    assert one + two != both


def test_the_policys_turns_end_both_ways() -> None:
    reasons = {t.completion.finish_reason for s in range(40) for t in play("chat", ["a", "b"], s)[1].turns}
    assert reasons == {"stop", "length"}, "the property above is to hold for both"


SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def test_a_system_message_stays_one() -> None:
    text = Chat(TOKENIZERS["chat"]).text("Be brief.\n\n2 + 2?", SYSTEM)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert Chat(TOKENIZERS["plain"]).text("Be brief.\n\n2 + 2?", SYSTEM) == "Be brief.\n\n2 + 2?"


def test_the_configured_system_message_is_for_those_without_one() -> None:
    chat = Chat(TOKENIZERS["chat"], ChatConfig(system="Think."))
    assert chat.text("2 + 2?").startswith("<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n2 + 2?")
    assert "Think." not in chat.text("", SYSTEM)


def test_a_prefill_begins_every_turn_of_the_policy() -> None:
    for kind in TOKENIZERS:
        chat = Chat(TOKENIZERS[kind], ChatConfig(prefill="<think>\n"))
        assert chat.text("a").endswith("<think>\n")
        assert TOKENIZERS[kind].decode(chat.reply(None, "b")).endswith("<think>\n")


def test_arguments_reach_the_template(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(None)
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages[-1].content }}{% if thinking %} Think!{% endif %}")
    set_template(tokenizer, ChatConfig(template=str(file)))
    assert Chat(tokenizer, ChatConfig(kwargs={"thinking": True})).text("2?") == "2? Think!"
    assert Chat(tokenizer).text("2?") == "2?"


@pytest.mark.parametrize("config", [ChatConfig(system="x"), ChatConfig(kwargs={"thinking": True})])
def test_what_only_a_template_can_do_is_refused_without_one(config: ChatConfig) -> None:
    with pytest.raises(UsageError, match=r"model\.chat\.(system|kwargs) is for a chat template.*FILE"):
        Chat(TOKENIZERS["plain"], config)


def test_a_template_that_does_not_render_is_one_line(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("{% for m in %}")
    with pytest.raises(UsageError, match="The chat template does not render a conversation of user"):
        Chat(tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no system here') if messages[0].role == 'system' }}x"
    with pytest.raises(UsageError, match="of system, user: no system here"):
        Chat(tokenizer).text("", SYSTEM)
    with pytest.raises(UsageError, match=r"model\.chat\.template='/no/where' cannot be read"):
        set_template(tokenizer, ChatConfig(template="/no/where"))
