"""Every experiment of the paper is planned on the meta device, and needs what docs/scale.md says."""

from __future__ import annotations

import re

import pytest

from ecrl.config.groups import options
from ecrl.estimate.advice import missing
from ecrl.estimate.flops import iteration
from ecrl.estimate.memory import GIB, moments, reserve
from tests.support.experiments import LAW_MODELS
from tests.support.jobs import job
from tests.support.marks import slow_unless
from tests.support.paths import ROOT
from tests.support.recipes import section

TEXT = section((ROOT / "docs/scale.md").read_text(), "The paper's runs")
#: Each row of the table, by its overrides.
TABLE = {row.split("`")[1]: row for row in re.findall(r"^\| `experiment=.*\|$", TEXT, re.M)}


@pytest.mark.parametrize("words", slow_unless(lambda words: words.endswith(("clip_cov", "prime")), TABLE))
def test_the_table_is_what_the_plan_says(words: str) -> None:
    plan = job(*words.split())
    gib = (max(sum(parts.values()) for parts in moments(plan).values()) + reserve(plan)) / GIB
    seconds = sum(phase.seconds for phase in iteration(plan).values())
    hours = seconds * plan.config.iterations / 3600
    assert TABLE[words] == f"| `{words}` | {plan.gpus} | {gib:.0f} | {seconds:,.0f} | {hours:,.0f} |"
    assert missing(plan) <= 0


@pytest.mark.parametrize("method", slow_unless("grpo".__eq__, ["grpo", "clip_higher", "clip_cov", "kl_cov"]))
def test_the_largest_models_decode_for_less_than_60_percent_of_the_time(method: str) -> None:
    plan = job(f"experiment=paper_32b_{method}")
    phases = iteration(plan)
    assert not plan.offloads
    assert phases["decode"].seconds < 0.6 * sum(phase.seconds for phase in phases.values())


def test_the_table_has_every_experiment_and_every_model() -> None:
    rows = "\n".join(TABLE)
    assert set(re.findall(r"experiment=(\w+)", rows)) == set(options("experiment"))
    assert set(re.findall(r"model=(\w+)", rows)) == set(LAW_MODELS)


@pytest.mark.parametrize("preset", slow_unless("mistral_small_24b".__eq__, LAW_MODELS))
def test_the_models_have_the_published_size(preset: str) -> None:
    _, parameters = LAW_MODELS[preset]
    assert job(f"model={preset}").model.parameters == parameters
