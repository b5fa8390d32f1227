"""Limits stand beside the fields, and every one of them is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nan

import pytest

from ecrl.config.compose import build_config
from ecrl.config.limits import LIMIT, Choice, NotEmpty, Range, check_limits, choice, count, leaves, number
from ecrl.config.schema import Config
from ecrl.errors import UsageError

LIMITED = {key: limit for key, _, limit in leaves(Config()) if limit is not None}


def test_every_number_and_every_choice_of_the_schema_is_limited() -> None:
    for key, value, limit in leaves(Config()):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert limit is not None, key
    assert {key for key, limit in LIMITED.items() if isinstance(limit, Choice)} == {
        "eval.shared",
        "trainer.accelerator",
        "trainer.precision",
        "trainer.parallel",
        "update.schedule.name",
        "model.attention",
        "model.compile",
        "model.dtype",
        "model.quantization",
        "rollout.old_logprobs",
        "rollout.overlong_prompts",
        "env.on_error",
        "model.activation_checkpointing",
    }


@pytest.mark.parametrize("key", [key for key, limit in LIMITED.items() if isinstance(limit, Range)])
def test_a_value_beyond_a_limit_is_refused_by_its_key(key: str) -> None:
    limit = LIMITED[key]
    assert isinstance(limit, Range)
    beyond = []
    if limit.least is not None:
        beyond.append(limit.least - 1)
    if limit.above is not None:
        beyond.append(limit.above)
    if limit.most is not None:
        beyond.append(limit.most + 1)
    assert beyond
    for value in beyond:
        with pytest.raises(UsageError, match=f"^{key} must be"):
            build_config([f"{key}={value}"])


@dataclass
class Inner:
    size: int = count(1, least=1, most=9)
    names: list[str] | None = field(default=None, metadata={LIMIT: NotEmpty("name one")})


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    rate: float = number(0.5, above=0, most=1, wanted="in (0, 1]")
    rates: tuple[float, ...] = number((), least=0)
    kind: str = choice("red", ("red", "green"))
    more: dict[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Outer(Inner(0)), "inner.size must be at least 1, got 0."),
        (Outer(Inner(10)), "inner.size must be at most 9, got 10."),
        (Outer(Inner(names=[])), "inner.names is empty; name one."),
        (Outer(rate=0), "rate must be in (0, 1], got 0."),
        (Outer(rate=nan), "rate must be a finite number, got nan."),
        (Outer(rates=(1, -1)), "rates must be at least 0, got -1."),
        (Outer(kind="gren"), "kind takes one of red, green; got 'gren'. Did you mean 'green'?"),
        (Outer(more={"deep": {"x": inf}}), "more.deep.x must be a finite number, got inf."),
    ],
)
def test_a_limit_says_what_is_wanted(given: Outer, says: str) -> None:
    with pytest.raises(UsageError) as error:
        check_limits(given)
    assert str(error.value) == says


def test_values_on_the_bounds_pass() -> None:
    for given in (Outer(), Outer(Inner(9, ["a"]), 1, (0,), "green", {"x": "nan"})):
        check_limits(given)
