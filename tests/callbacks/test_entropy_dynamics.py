"""Covariance diagnostics and entropy dynamics: values by hand, any partition, real runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecrl.algorithm.covariance import response_covariance
from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.callbacks.monitors.accuracy import AccuracyMonitor
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.entropy_dynamics import EntropyDynamics, entropy_change
from ecrl.callbacks.monitors.leading_tokens import LeadingTokens, leaders
from ecrl.callbacks.monitors.token_picture import WIDTH, Sample, TokenPicture, draw, drawable, pieces
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion
from ecrl.metrics import MetricsRecorder, Record
from ecrl.policy.tiny_model import build_tokenizer
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.run import train
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.runs import assert_same_run, silent
from tests.support.tokens import make_tokens


def recording(iteration: int = 0) -> Any:
    return SimpleNamespace(
        recorder=MetricsRecorder(),
        iteration=iteration,
        tokenizer=build_tokenizer(),
        process_group=ProcessGroup(),
    )


def plan_of(tokens: TokenBatch) -> LossPlan:
    logprobs, entropy = tokens.logprobs.detach(), tokens.entropy.detach()
    return make_loss_plan(replace(tokens, logprobs=logprobs, entropy=entropy), Objective(), [])


def two_prompts() -> TokenBatch:
    """Prompt 7 has three responses of lengths 2, 1, 1; prompt 3 two of length 1; prompt 9 one."""
    tokens = make_tokens(
        [-1.0, -3.0, -1.0, -3.0, -1.0, -2.0, -0.5],
        [3.0, 3.0, 0.0, 0.0, 1.0, -1.0, 0.0],
        sequences=[0, 0, 1, 2, 3, 4, 5],
    )
    return replace(tokens, group_ids=torch.tensor([7, 7, 7, 7, 3, 3, 9]))


def test_covariance_of_responses_by_hand() -> None:
    """Prompt 7: log π = (−2, −1, −3), A = (3, 0, 0): 0. Prompt 3: ½·1 twice over two. Prompt 9: alone."""
    tokens = two_prompts()
    groups, cov = response_covariance(tokens, tokens.logprobs.detach())
    assert groups.tolist() == [3, 7]
    assert cov.tolist() == pytest.approx([0.5, 0.0])
    longer = replace(tokens, advantages=torch.tensor([0.0, 0.0, 3.0, 0.0, 1.0, -1.0, 0.0]))
    # log π − mean = (0, 1, −1), A − mean = (−1, 2, −1): (0 + 2 + 1)/3.
    assert response_covariance(longer, tokens.logprobs.detach())[1].tolist() == pytest.approx([0.5, 1.0])


def trajectory(problem: int, reward: float) -> Trajectory:
    turn = Turn([], Completion([5], [-1.0], [1.0], "stop", 0))
    return Trajectory([1], [turn], problem, 0, reward, True, False, {}, None, "", "")


def test_covariance_by_accuracy_by_hand() -> None:
    """Prompt 3 is always right, 7 in one of four, 9 never; problem 1 was drawn and dropped."""
    tokens = two_prompts()
    monitor, module = AccuracyMonitor(), recording()
    rewards = {9: [0.0, 0.0], 7: [0.0, 1.0, 0.0, 0.0], 3: [1.0, 1.0], 1: [0.5]}
    monitor.on_rollout(module, [trajectory(p, r) for p, some in rewards.items() for r in some])
    monitor.on_plan(module, plan_of(tokens), fresh=False)
    assert not module.recorder.flush().numbers
    monitor.on_plan(module, plan_of(tokens), fresh=True)
    x = [v + 11.5 / 7 for v in (-1.0, -3.0, -1.0, -3.0, -1.0, -2.0, -0.5)]
    cov = [u * (a - 6 / 7) for u, a in zip(x, (3.0, 3.0, 0.0, 0.0, 1.0, -1.0, 0.0), strict=True)]
    assert module.recorder.flush().numbers == pytest.approx(
        {
            "cov/accuracy_0-25%": sum(cov[:4]) / 4,
            "cov/accuracy_100%": sum(cov[4:6]) / 2,
            "cov/accuracy_0%": cov[6],
            "cov/group/mean": 0.25,
            "cov/group/accuracy_0-25%": 0.0,
            "cov/group/accuracy_100%": 0.5,
        },
        abs=1e-6,
    )


def test_leading_tokens_by_hand() -> None:
    ids = torch.tensor([4, 2, 4, 9, 2])
    rows = leaders(ids, torch.tensor([1.0, -1.0, 2.0, 2.5, 0.5]), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.6]))
    assert [row[:2] for row in rows] == [(4, 2), (9, 1), (2, 2)]
    assert [row[2:] for row in rows] == [pytest.approx(r) for r in [(1.5, 0.2), (2.5, 0.4), (-0.25, 0.4)]]


def test_the_table_is_due_and_shows_text() -> None:
    due = []
    for iteration in range(4):
        module = recording(iteration)
        space, pipe = (module.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in " |")
        tokens = replace(make_tokens([-1.0, -3.0], [1.0, 0.0]), token_ids=torch.tensor([pipe, space]))
        LeadingTokens(every=2).on_plan(module, plan_of(tokens), fresh=True)
        due.append(module.recorder.flush().texts)
    assert [bool(texts) for texts in due] == [False, True, False, True]
    lines = due[1]["covariance/tokens"].splitlines()
    assert sorted(lines[2:]) == ["| &#124; | 1 | 0.5 | 1 |", "| ␣ | 1 | 0.5 | 1 |"]


def test_pieces_end_where_lines_end() -> None:
    assert list(pieces(WIDTH - 2, 5)) == [(0, WIDTH - 2, 2), (1, 0, 3)]
    assert list(pieces(0, 2 * WIDTH)) == [(0, 0, WIDTH), (1, 0, WIDTH)]


def test_what_the_font_lacks_is_a_box() -> None:
    assert drawable("a b\n") == "a␣b⏎" and drawable("字🙂") == "□□" and drawable("") == "□"


def faces(figure: Figure) -> list[Any]:
    """Colours of the boxes, by column of the picture."""
    return [
        np.concatenate([c.get_facecolor() for c in axes.collections if isinstance(c, PatchCollection)])
        for axes in figure.axes
        if any(isinstance(c, PatchCollection) for c in axes.collections)
    ]


def test_colours_follow_the_numbers() -> None:
    figure = draw([Sample("$x$", ["a", "$b_", "c" * 100], [2.0, -2.0, 0.0], [0.0, 1.0, 0.5])], 2.0, 1.0)
    cov, entropy = faces(figure)
    assert len(cov) == len(entropy) == 4  # the last token spans two lines
    red, blue = cov[:, 0], cov[:, 2]
    assert red[0] > blue[0] + 0.3 and blue[1] > red[1] + 0.3 and abs(red[2] - blue[2]) < 0.05
    brightness = entropy[:, :3].sum(1)
    assert brightness[0] > brightness[2] == brightness[3] > brightness[1]
    figure.savefig(io.BytesIO())  # a dollar sign is not mathematics here


def test_text_lies_on_its_boxes() -> None:
    figure = draw([Sample("", ["m" * WIDTH], [1.0], [1.0])], 1.0, 1.0)
    figure.savefig(io.BytesIO())
    axes = figure.axes[0]
    (line,) = [text for text in axes.texts if len(text.get_text()) == WIDTH]
    assert line.get_window_extent().width == pytest.approx(axes.get_window_extent().width, rel=0.01)


def test_the_picture_is_due_and_spread() -> None:
    tokens = make_tokens([-1.0] * 9, [1.0] * 9, sequences=list(range(9)))
    tokens = replace(tokens, token_ids=torch.arange(20, 29))
    due = []
    for iteration in range(2):
        module = recording(iteration)
        TokenPicture(every=2, count=4).on_plan(module, plan_of(tokens), fresh=True)
        due.append(module.recorder.flush().figures)
    assert not due[0]
    assert [len(column) for column in faces(due[1]["covariance/completions"])] == [4, 4]
    module = recording(1)
    TokenPicture(every=2, count=0).on_plan(module, plan_of(tokens), fresh=True)
    assert not module.recorder.flush().figures


def observed(config: Config, splits: Sequence[tuple[int, int]]) -> list[Record]:
    """What the monitors say of one minibatch, for each way to split it into micro-batches."""
    dynamics = EntropyDynamics()
    module = make_module(config, [])
    monitors = [dynamics, CovarianceMonitor(every=1), AccuracyMonitor(), LeadingTokens(every=1)]
    monitors += [TokenPicture(every=1, count=3)]
    module.trainer.callbacks += monitors  # type: ignore[attr-defined]
    batch = replace(make_batch(module), fresh=True)
    rewards = zip(batch.group_ids.tolist(), batch.rewards.tolist(), strict=True)
    monitors[2].on_rollout(module, [trajectory(*pair) for pair in rewards])  # type: ignore[attr-defined]
    records = []
    for config.update.max_tokens, config.update.row_tokens in splits:
        gradient(module, batch)
        records.append(module.recorder.flush())
        records[-1].numbers["by_responses"] = dynamics._by_responses
        records[-1].numbers["by_tokens"] = dynamics._by_tokens
        dynamics._forget()
    return records


def test_partition_does_not_matter(tiny: Callable[..., Config]) -> None:
    """All of it is of the whole minibatch, whatever the micro-batches."""
    whole, *parts = observed(tiny(), [(10**6, 0), (64, 0), (20, 0)])
    names = [n for n in whole.numbers if n.startswith(("cov/", "by_"))]
    assert {"cov/top_0.02%", "cov/group/mean", "by_responses"} <= set(names)
    assert whole.numbers["by_responses"] != 0
    for part in parts:
        assert {n: part.numbers[n] for n in names} == {n: whole.numbers[n] for n in names}
        assert part.texts == whole.texts
        for one, other in zip(
            *(faces(r.figures["covariance/completions"]) for r in (part, whole)), strict=True
        ):
            assert np.array_equal(one, other)


def test_entropy_change_by_hand() -> None:
    """π = (¾, ¼), z₁ grows by δ: −Cov[log π, Δz] = −π₁π₂·log 3·δ; a shift of all logits does nothing."""
    before = torch.tensor([[0.75, 0.25]]).log().repeat(40, 1)
    step = torch.tensor([[1e-3, 0.0]]) + 5.0
    measured, predicted = entropy_change(before, before + step)
    assert predicted == pytest.approx(-0.1875 * np.log(3) * 1e-3, rel=1e-3)
    assert measured == pytest.approx(predicted, rel=1e-2)
    measured, predicted = entropy_change(before, before - 2 * torch.tensor([[0.5, 0.0]]))
    assert predicted == pytest.approx(0.1875 * np.log(3), rel=1e-5)
    odds = 3 * np.exp(-1)
    p = odds / (1 + odds)
    entropy = [-(q * np.log(q) + (1 - q) * np.log(1 - q)) for q in (p, 0.75)]
    assert measured == pytest.approx(entropy[0] - entropy[1], rel=1e-5)


DYNAMICS = ["monitor=[standard,entropy_dynamics]", "log.samples_every=2", "rollout.max_new_tokens=6"]


def test_a_real_run_shows_everything(tiny: Callable[..., Config]) -> None:
    """With small steps, −Cov[log π, Δz] is the measured change; only numbers go to the history."""
    config = tiny(*DYNAMICS, "iterations=10", "update.lr=1e-5")
    run_dir = train(config, silent).run_dir
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert len(rows) == 10
    last = rows[-1]
    assert last["dynamics/correlation_by_logits"] > 0.99
    assert last["dynamics/slope_by_logits"] == pytest.approx(1, abs=0.05)
    measured = [row["dynamics/measured"] for row in rows]
    predicted = [row["dynamics/by_logits"] for row in rows]
    assert np.corrcoef(predicted, measured)[0, 1] == pytest.approx(last["dynamics/correlation_by_logits"])
    assert all(row["dynamics/by_tokens"] != 0 and row["dynamics/by_responses"] != 0 for row in rows)
    assert {n for n in last if n.startswith("cov/accuracy_")} and "cov/top_50%" in last
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        assert all(v is None or isinstance(v, int | float) for v in json.loads(line).values())
    board = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()
    for name in ("dynamics/scatter", "covariance/completions"):
        images = board.Images(name)
        assert [image.step for image in images] == [2, 4, 6, 8, 10]
        assert images[-1].encoded_image_string.startswith(b"\x89PNG") and images[-1].width > 300
    assert [e.step for e in board.Tensors("covariance/tokens/text_summary")] == [2, 4, 6, 8, 10]


def test_first_order_ends_with_large_steps(tiny: Callable[..., Config]) -> None:
    """A random policy is nearly uniform, where the first-order term vanishes: a hundred times the step."""
    run_dir = train(tiny(*DYNAMICS, "iterations=10", "update.lr=1e-3"), silent).run_dir
    last = read_metrics(run_dir / "metrics.jsonl")[-1]
    assert abs(last["dynamics/slope_by_logits"] - 1) > 0.3


def test_dynamics_resume_exactly(tiny: Callable[..., Config], tmp_path: Path) -> None:
    whole = train(tiny(*DYNAMICS, "iterations=5", f"run_dir={tmp_path / 'whole'}"), silent).run_dir
    parts = train(tiny(*DYNAMICS, "iterations=2", f"run_dir={tmp_path / 'parts'}"), silent).run_dir
    train(resumed_config([f"resume={parts}", "iterations=5"]), silent)
    assert_same_run(whole, parts)
    assert "dynamics/slope_by_logits" in read_metrics(parts / "metrics.jsonl")[-1]


@pytest.mark.parametrize("knobs", [{"problems": 0}, {"tokens": 0}, {"problems": 10, "tokens": 9}])
def test_the_probe_has_a_position_for_each_problem(knobs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="between 1 and tokens"):
        EntropyDynamics(**knobs)


def test_an_iteration_that_learns_nothing_is_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """(0, 0) lies on any line through the origin: it would make agreement out of nothing."""
    dynamics = EntropyDynamics()
    changes = iter([(0.0, 0.0), (0.3, 0.1), (0.0, 0.0), (0.1, 0.3), (0.2, 0.25)])
    monkeypatch.setattr(dynamics, "_look", lambda module: torch.zeros(1, 2))
    monkeypatch.setattr("ecrl.callbacks.monitors.entropy_dynamics.entropy_change", lambda *_: next(changes))
    dynamics._logits = torch.zeros(1, 2)
    module, said = recording(), []
    module.config = SimpleNamespace(update=SimpleNamespace(lr=1.0), log=SimpleNamespace(samples_every=1))
    trainer: Any = SimpleNamespace(max_epochs=5)
    for learnt in (False, True, False, True, True):
        if learnt:
            dynamics.on_plan(module, plan_of(two_prompts()), fresh=True)
        dynamics.on_train_epoch_end(trainer, module)
        said.append(module.recorder.flush())
    assert [bool(record.figures) for record in said] == [False, True, True, True, True]
    assert [("dynamics/slope_by_logits" in r.numbers) for r in said] == [False] * 4 + [True]
    # By hand: predicted .1 .3 .25, measured .3 .1 .2; Σxy over the means −.0200, Σx² .0217.
    assert said[-1].numbers["dynamics/slope_by_logits"] == pytest.approx(-0.02 / (0.13 / 6), rel=1e-6)
    assert all(record.numbers["dynamics/measured"] >= 0 for record in said)
