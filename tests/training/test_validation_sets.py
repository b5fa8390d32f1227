"""Several validation sets in a run, in `ecrl eval`, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.eval_sets import longest_completion, validation_sets
from ecrl.config.resume import resumed_config, saved_config
from ecrl.config.schema import Config
from ecrl.engines.base import Completion, Sampling
from ecrl.errors import UsageError
from ecrl.rollout.collector import Collector
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.runs.metrics_file import read_metrics
from ecrl.training import validation
from ecrl.training.preflight import preflight
from ecrl.training.run import evaluate, train
from tests.support.cli import refused
from tests.support.row_files import jsonl
from tests.support.runs import assert_same_run, run, silent
from tests.support.tiny import TINY

SEVENS = "tests.support.tasks:test/Sevens-v0"
#: The training environment, another by its id, and a greedy one; the third comes every second iteration.
SETS = [
    "eval.every=1",
    "eval.problems=4",
    "eval.k=2",
    f"eval.sets={{own: {{}}, sevens: {{env: '{SEVENS}', k: 3, temperature: 0.6, max_new_tokens: 5}}, "
    f"once: {{env: {{id: '{SEVENS}'}}, k: 1, temperature: 0, problems: 3, every: 2}}}}",
]


def answer(problem: int, copy: int, reward: float) -> Trajectory:
    completion = Completion([5], [-1.0], [1.0], "stop", 0)
    turns, vote = [Turn([], completion)], int(reward)
    return Trajectory([1], turns, problem, copy, reward, True, False, {}, None, "", "", vote=vote)


def test_numbers_and_standard_errors_by_hand() -> None:
    # Set a: problem means ½, 1, 0; set b: greedy alone, 1 and 0.
    sampled = {0: (1.0, 0.0), 1: (1.0, 1.0), 2: (0.0, 0.0)}

    def draw(
        of: validation.ValidationSet, problems: Sequence[int], copies: int, how: Sampling
    ) -> list[Trajectory]:
        if how.temperature == 0:
            return [answer(p, 0, float(p == 0)) for p in problems]
        return [answer(p, copy, sampled[p][copy]) for p in problems for copy in range(copies)]

    sets = ["eval.sets={a: {k: 2, problems: 3}, b: {k: 1, temperature: 0, problems: 2}}"]
    found = validation.evaluate(validation_sets(build_config(sets)), {"a": None, "b": None}, draw, mean=True)
    assert found.metrics == pytest.approx(
        {
            "val/a/avg@2": 0.5, "val/a/pass@1": 0.5, "val/a/pass@2": 2 / 3, "val/a/maj@2": 0.5,
            "val/a/greedy": 1 / 3, "val/a/length": 1.0, "val/a/overlong_prompts": 0.0,
            "val/b/avg@1": 0.5, "val/b/pass@1": 0.5, "val/b/maj@1": 0.5, "val/b/greedy": 0.5,
            "val/b/length": 1.0, "val/b/overlong_prompts": 0.0, "val/mean/avg@k": 0.5,
        }
    )  # fmt: skip
    # Deviations ½·√2 over √3 problems of a; 1/√2 over √2 of b.
    a, b = 0.5 / sqrt(3), 0.5
    assert found.standard_errors["val/a/avg@2"] == pytest.approx(a)
    assert found.standard_errors["val/b/greedy"] == pytest.approx(b)
    assert found.standard_errors["val/mean/avg@k"] == pytest.approx(sqrt(a * a + b * b) / 2)


def test_what_is_not_read_counts_as_wrong_and_failures_are_counted() -> None:
    unread = replace(answer(0, 0, 0.0), turns=[], vote=None, overlong=True)

    def draw(
        of: validation.ValidationSet, problems: Sequence[int], copies: int, how: Sampling
    ) -> list[Trajectory]:
        read = [replace(answer(1, copy, 1.0), failed=copy == 1) for copy in range(copies)]
        return [*([unread] * copies), *read]

    sets = validation_sets(build_config(["eval.sets={a: {k: 2, problems: 2}}"]))
    found = validation.evaluate(sets, {"a": None}, draw, mean=True)
    wanted = {"avg@2": 0.5, "greedy": 0.5, "length": 1.0, "overlong_prompts": 1.0, "env_errors": 1.0}
    assert {name: found.metrics[f"val/a/{name}"] for name in wanted} == wanted
    assert "val/a/overlong_prompts" not in found.standard_errors
    greedy = validation_sets(build_config(["eval.sets={a: {k: 1, temperature: 0, problems: 2}}"]))
    nothing = validation.evaluate(greedy, {"a": None}, lambda *_: [unread, unread], mean=True).metrics
    assert nothing["val/a/length"] == 0 and nothing["val/a/overlong_prompts"] == 2
    assert "val/a/env_errors" not in nothing


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four iterations."""
    base = [*TINY, f"model.path={tiny_model}", *SETS]
    return run(base, tmp_path_factory.mktemp("sets") / "whole", "iterations=4")


def test_each_set_has_metrics_of_its_own_when_it_is_due(whole: Path) -> None:
    rows = read_metrics(whole / "metrics.jsonl")
    assert [{n.split("/")[1] for n in row if n.startswith("val/")} for row in rows] == [
        {"own", "sevens", "once", "mean"} if i % 2 == 0 else {"own", "sevens"} for i in range(5)
    ]
    for row in rows[::2]:
        averages = [row["val/own/avg@2"], row["val/sevens/avg@3"], row["val/once/avg@1"]]
        assert row["val/mean/avg@k"] == pytest.approx(sum(averages) / 3)
        assert row["val/once/avg@1"] == row["val/once/greedy"]
        assert row["val/sevens/length"] <= 5


def test_a_run_with_sets_resumes_exactly_and_may_change_them(
    whole: Path, tiny_model: Path, tmp_path: Path
) -> None:
    parts = run([*TINY, f"model.path={tiny_model}", *SETS], tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)
    changed = resumed_config(
        [f"resume={parts}", "eval.sets.sevens.k=5", "eval.sets.once=null", "eval=paper_math"]
    )
    assert [(of.name, of.k) for of in validation_sets(changed)][:3] == [
        ("own", 2),
        ("sevens", 5),
        ("aime24", 32),
    ]
    assert changed.eval.every == 1


def test_the_saved_configuration_says_what_ran(whole: Path) -> None:
    sets = saved_config(whole / "config.yaml").eval.sets
    assert sets.sevens.env.id == sets.once.env.id == SEVENS and sets.own.env is None


def test_answers_are_drawn_once(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    collect, drawn = Collector.collect, list[tuple[str, int]]()

    def counted(self: Collector, pool: str, problems: Any, copies: int, *rest: Any) -> list[Trajectory]:
        drawn.append((pool, copies))
        return collect(self, pool, problems, copies, *rest)

    monkeypatch.setattr(Collector, "collect", counted)
    evaluate(tiny(*SETS))
    assert drawn == [("own", 2), ("own", 1), ("sevens", 3), ("sevens", 1), ("once", 1)]


def test_memory_is_bounded_and_chunks_do_not_matter(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(*SETS)
    expected = evaluate(config)
    monkeypatch.setattr(validation, "VAL_COMPLETIONS", 2)
    assert evaluate(config) == expected


def test_eval_of_a_run_takes_its_last_policy_and_its_own_sets(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    assert (
        main(["eval", str(whole), f"output={out}", "eval.sets.once=null", "eval.sets.sevens.problems=6"]) == 0
    )
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    assert "± standard error" in printed and "val/sevens/avg@3" in printed
    last = read_metrics(whole / "metrics.jsonl")[-1]
    assert result["metrics"]["val/own/greedy"] == pytest.approx(last["val/own/greedy"])
    assert set(result["sets"]) == {"own", "sevens"} and result["run"] == str(whole)
    assert 0 < result["standard_errors"]["val/own/avg@2"] < 1


def test_eval_of_a_run_that_was_cut_off_takes_its_checkpoint(
    whole: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = run([*TINY, f"model.path={tiny_model}", *SETS], tmp_path / "cut", "iterations=4")
    (cut / "summary.json").unlink()
    (cut / "policy" / "config.json").unlink()
    for name in ("cut", "whole"):
        folder = cut if name == "cut" else whole
        assert main(["eval", str(folder), f"output={tmp_path / name}.json"]) == 0
    one, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("cut", "whole"))
    assert one["metrics"] == pytest.approx(other["metrics"])
    assert "not a run directory" in refused(capsys, "eval", str(tmp_path))
    assert "takes one run" in refused(capsys, "eval", str(cut), str(whole))
    assert "Did you mean 'eval.k'" in refused(capsys, "eval", str(cut), "eval.kk=3")
    assert "every validation set" in refused(
        capsys, "eval", str(cut), "env.kwargs.steps=2", "eval.sets.own=null"
    )
    assert "for new runs" in refused(capsys, "eval", str(cut), "experiment=paper_law")


@pytest.mark.slow
def test_a_chat_model_is_validated_on_three_published_sets(
    chat_model: Path, chat_data: Path, tmp_path: Path
) -> None:
    def of(name: str, rest: str) -> str:
        return f"eval.sets.{name}={{env: {name}, kwargs: {{path: '{chat_data / name}.jsonl'}}, {rest}}}"

    words = [word for word in TINY if not word.startswith(("env=", "eval.", "rollout.prompts"))]
    words += [
        "env=dapo_math_17k",
        f"env.kwargs.path={chat_data / 'dapo_math_17k'}.jsonl",
        "rollout.prompts=2",
    ]
    words += [of("math500", "k: 2"), of("aime24", "k: 3, temperature: 0.6, max_new_tokens: 12")]
    words += [of("gsm8k", "k: 1, temperature: 0"), "eval.every=1", "eval.problems=2", "iterations=1"]
    rows = read_metrics(run([*words, f"model.path={chat_model}"], tmp_path / "run") / "metrics.jsonl")
    for row in rows:
        names = ["val/math500/avg@2", "val/aime24/avg@3", "val/gsm8k/avg@1"]
        assert row["val/mean/avg@k"] == pytest.approx(sum(row[name] for name in names) / 3)
        assert 8 < row["val/aime24/length"] <= 12 and row["val/math500/length"] <= 8


def test_training_shares_no_problem_with_any_set(tiny: Callable[..., Config], tmp_path: Path) -> None:
    rows = [{"problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(40)]
    file = jsonl(tmp_path / "sums.jsonl", rows)
    other = jsonl(tmp_path / "other.jsonl", [*rows[:3], {"problem": "What is 7?", "answer": "7"}])
    words = ["env=math", f"env.kwargs.path={file}", "eval.every=1", f"env.kwargs.val_path={other}"]
    both = f"{{path: '{other}', val_path: '{other}'}}"
    shared = f"eval.sets={{fine: {{env: countdown}}, bad: {{env: math, kwargs: {both}}}}}"
    with pytest.raises(
        UsageError, match=r"3 of the 4 validation problems of eval\.sets\.bad are problems of train"
    ):
        preflight(tiny(*words, shared))
    preflight(tiny(*words, shared, "eval.shared=allow"))
    preflight(tiny(*words, shared, "eval.sets.bad=null"))
    with pytest.raises(UsageError, match=r"eval.sets.bad.problems=9, but ecrl/Math-v0 has only 4 for"):
        preflight(tiny(*words, shared, "eval.sets.bad.problems=9"))
    with pytest.raises(UsageError, match="nonsense"):
        preflight(tiny(*words, "eval.sets={a: {env: math, kwargs: {nonsense: 1}}}"))


def test_a_set_takes_the_rest_from_eval_and_rollout() -> None:
    config = build_config(
        ["eval.sets={a: {k: 3}, b: {max_new_tokens: 99}}", "eval.temperature=0.5", "eval.top_p=0.9"]
    )
    a, b = validation_sets(config)
    assert (a.k, a.temperature, a.top_p, a.max_new_tokens, a.every, a.problems) == (
        3,
        0.5,
        0.9,
        16,
        10,
        "all",
    )
    assert (b.k, b.max_new_tokens) == (16, 99) and longest_completion(config) == 99
    alone = validation_sets(build_config(["eval.max_new_tokens=7"]))
    assert [(of.name, of.max_new_tokens) for of in alone] == [("countdown", 7)]


def test_the_papers_sets() -> None:
    sets = validation_sets(build_config(["eval=paper_math", "eval.sets.omni_math=null"]))
    assert [of.name for of in sets] == ["aime24", "aime25", "amc", "math500", "olympiad_bench", "minerva"]
    assert all(of.env.id == "ecrl/Math-v0" and of.env.kwargs["path"] for of in sets)


@pytest.mark.parametrize(
    ("word", "says"),
    {
        "eval.sets={a: {env: math50}}": "Unknown env 'math50'. Did you mean 'math500'?",
        "eval.sets={a: {kk: 3}}": "Unknown key of a validation set 'kk'. Did you mean 'k'?",
        "eval.sets.a.kk=3": "Unknown key of a validation set 'kk'. Did you mean 'k'?",
        "eval.sets={a: {k: 0}}": "eval.sets.a.k must be at least 1, got 0.",
        "eval.sets={a: {k: x}}": "eval.sets.a.k takes a whole number; got x.",
        "eval.sets={mean: {k: 1}}": "'mean' cannot name a set",
        "eval.sets={train: {k: 1}}": "'train' cannot name a set",
        "eval.sets={a.b: {k: 1}}": "'a.b' cannot name a set",
        "eval.sets={a: 3}": "eval.sets.a takes names and values, one by one: eval.sets.a.NAME=VALUE; got 3.",
        "eval.sets=[a]": "eval.sets takes names and values, one by one: eval.sets.NAME=VALUE; got [a].",
        "eval.sets={a: {env: {kwargs: {}}}}": "eval.sets.a.env takes a name",
        "eval.sets={a: {env: {id: x, foo: 2}}}": "eval.sets.a.env: Key 'foo' not in 'EnvConfig'",
        "eval.sets={a: {env: 3}}": "eval.sets.a.env takes a name",
        "eval.sets={a: {every: 15}}": "eval.sets.a.every=15 is no multiple of eval.every=10",
        "eval.sets={a: {temperature: 0}}": "eval.sets.a.k=1",
        "eval.sets={a: {problems: most}}": "eval.sets.a.problems takes a number of at least 1, or all",
        "eval.sets={a: {top_p: 2}}": "eval.sets.a.top_p must be in (0, 1], got 2.0.",
        "eval.sets={a: {max_new_tokens: 0}}": "eval.sets.a.max_new_tokens must be at least 1",
        "eval.temperature=0": "set eval.k=1",
        "eval.top_p=0": "eval.top_p must be in (0, 1]",
        "eval.max_new_tokens=0": "eval.max_new_tokens must be at least 1",
        "eval=nothing": "Unknown eval 'nothing'. Known: paper_math.",
    }.items(),
)
def test_what_is_refused(word: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, "train", word)
