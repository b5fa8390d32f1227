"""The warm start reads prompts as rollouts write them."""

from __future__ import annotations

import pytest

from ecrl.config.compose import build_config
from ecrl.policy.tiny_model import build_tokenizer
from ecrl.rollout.chat import Chat
from ecrl.training.warmup import worked_solutions

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_its_prompts_are_rendered_as_rollouts_render_them(template: str | None) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    example = next(worked_solutions(build_config(["env=countdown", "strategy=[]"]), tokenizer))
    text = str(tokenizer.decode(example.prompt_ids))
    inside = text.removeprefix("<user>").removesuffix("<assistant>")
    assert (text != inside) == (template is not None)
    assert example.prompt_ids == Chat(tokenizer).opening(Chat(tokenizer).text(inside))
    assert example.response_ids[-1] == tokenizer.eos_token_id
