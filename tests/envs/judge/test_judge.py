"""`ecrl/Judge-v0` against a real server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.resume import resumed_config
from ecrl.envs.async_steps import close_shared_loop, resolved
from ecrl.envs.base import Problem
from ecrl.envs.conformance import check
from ecrl.envs.judge.env import JudgeEnv
from ecrl.envs.judge.judge import JudgeError, JudgeStats, stats
from ecrl.envs.safe_calls import make as make_env
from ecrl.errors import EcrlError, UsageError
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.run import train
from tests.support.judge_server import JudgeServer
from tests.support.judging import judge_forty, rewards
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY


@pytest.fixture(scope="module")
def process() -> Iterator[JudgeServer]:
    server = JudgeServer()
    yield server
    server.close()


@pytest.fixture
def server(process: JudgeServer) -> Iterator[JudgeServer]:
    process.tell(
        faults=[], seconds=0, form="json", key="", noisy=False, gather=0, seen=[], arrived=[], most=0
    )
    vars(stats).update(vars(JudgeStats()))
    yield process
    close_shared_loop()
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("async-steps", "verdicts"))]


@pytest.fixture
def kwargs(server: JudgeServer, tmp_path: Path) -> dict[str, Any]:
    rows = [{"problem": f"How many is {i}+1?", "answer": str(i + 1)} for i in range(300)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "path": str(path),
        "url": server.url,
        "model": "judge",
        "cache": str(tmp_path / "cache" / "verdicts.sqlite"),
        "retries": 2,
        "timeout": 5.0,
    }


# ------------------------------------------------------------------ one judge


def test_it_passes_the_conformance_suite(kwargs: dict[str, Any]) -> None:
    kwargs["reference_column"] = "answer"
    findings = check(lambda split: make_env("ecrl/Judge-v0", split, kwargs))
    assert {f.name: f.verdict for f in findings if f.verdict != "pass"} == {"right answers": "skip"}


@pytest.mark.parametrize("form", ["json", "boxed", "number"])
def test_a_verdict_becomes_a_reward(form: str, kwargs: dict[str, Any], server: JudgeServer) -> None:
    server.tell(form=form)
    env = JudgeEnv(**kwargs, verdict=form, scale=[0, 20])  # type: ignore[arg-type]
    prompt, info = env.reset(options={"index": 3})
    assert prompt == "How many is 3+1?" and env.gold(info["problem"]) is None
    result: Any = env.step("12ab")
    assert resolved(result) == ("", 0.25, True, False, {"metrics": {"score": 5.0}, "answer": None})
    (body,) = server.stats()["seen"]
    assert body["temperature"] == 0 and body["model"] == "judge" and body["max_tokens"] == 1024
    assert "How many is 3+1?" in body["messages"][1]["content"]


def test_an_empty_response_costs_nothing(kwargs: dict[str, Any], server: JudgeServer) -> None:
    assert rewards(JudgeEnv(**kwargs), ["", " \n"]) == [0, 0]
    assert server.asked() == 0


def test_many_are_judged_at_once_but_no_more_than_allowed(
    kwargs: dict[str, Any], server: JudgeServer
) -> None:
    server.tell(gather=64)
    assert rewards(JudgeEnv(**kwargs, in_flight=64), ["1"] * 64) == [1.0] * 64
    assert server.stats()["most"] == 64
    server.tell(gather=3, most=0)
    assert rewards(JudgeEnv(**kwargs, in_flight=3), ["2"] * 12) == [1.0] * 12
    assert server.stats()["most"] == 3


def test_the_same_question_is_asked_once(kwargs: dict[str, Any], server: JudgeServer) -> None:
    server.tell(noisy=True, seconds=0.05)

    async def five_times() -> set[float]:
        asked = [env.score(Problem("one", None), "1") for _ in range(5)]
        return {score.reward for score in await asyncio.gather(*asked)}

    env = JudgeEnv(**kwargs)
    first = resolved(five_times())
    close_shared_loop()
    assert resolved(five_times()) == first and len(first) == 1
    assert server.asked() == 1
    assert (stats.verdicts, stats.cached, stats.requests) == (10, 9, 1)
    other = JudgeEnv(**{**kwargs, "model": "another"})
    resolved(other.score(Problem("one", None), "1"))
    assert server.asked() == 2


FAULTS = [429, 500, 503, "broken", "empty", "cut", "mute", "hang"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again(fault: Any, kwargs: dict[str, Any], server: JudgeServer) -> None:
    server.tell(faults=[fault])
    assert rewards(JudgeEnv(**{**kwargs, "timeout": 0.5}), ["1a"]) == [0.5]
    assert (server.asked(), stats.retries, stats.failures) == (2, 1, 0)


SAID = {
    429: "HTTP 429 .*a failure",
    "broken": "no chat completion",
    "mute": 'no verdict {"score": N} ends "I cannot say."',
    "cut": "raise max_tokens",
    "hang": "no answer within 0.2 s",
}


@pytest.mark.parametrize("fault", SAID)
def test_but_not_for_ever(fault: Any, kwargs: dict[str, Any], server: JudgeServer) -> None:
    server.tell(faults=[fault] * 3 + [500])
    env = JudgeEnv(**{**kwargs, "timeout": 0.2, "retries": 2})
    (error,) = rewards(env, ["1a"])
    assert isinstance(error, JudgeError) and "\n" not in str(error)
    with pytest.raises(JudgeError, match=f"gave no verdict in 3 tries; last: .*{SAID[fault]}"):
        raise error
    assert (server.asked(), stats.failures) == (3, 1)
    assert rewards(env, ["1a"]) == [0.5]  # a failure is not kept


def test_pauses_between_tries_grow_and_are_the_same_each_time(
    kwargs: dict[str, Any], server: JudgeServer
) -> None:
    from ecrl.envs.judge.judge import _pause

    pauses = [_pause("f" * 64, attempt) for attempt in range(10)]
    assert pauses == [_pause("f" * 64, attempt) for attempt in range(10)]
    assert all(0.25 * 2**i <= pause <= 0.75 * 2**i for i, pause in enumerate(pauses[:6])) and pauses[9] == 60
    assert len({_pause(f"{i:064x}"[::-1], 0) for i in range(20)}) == 20
    server.tell(faults=[429])
    rewards(JudgeEnv(**kwargs), ["1"])
    first, second = server.stats()["arrived"]
    assert second - first >= 0.1  # the server's Retry-After


def test_a_response_that_the_server_refuses_is_not_tried_again(
    kwargs: dict[str, Any], server: JudgeServer
) -> None:
    server.tell(faults=[400])
    (error,) = rewards(JudgeEnv(**kwargs), ["1"])
    assert isinstance(error, JudgeError) and "cannot grade this response: HTTP 400" in str(error)
    assert server.asked() == 1


def test_the_key_comes_from_the_environment(
    kwargs: dict[str, Any], server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tell(key="secret-of-this-test")
    with pytest.raises(UsageError, match="refuses the key: HTTP 401"):
        JudgeEnv(**kwargs)
    with pytest.raises(UsageError, match="api_key_env='MY_KEY' names no environment variable"):
        JudgeEnv(**kwargs, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "secret-of-this-test")
    env = JudgeEnv(**kwargs, api_key_env="MY_KEY")
    assert rewards(env, ["1"]) == [1.0]
    assert "secret-of-this-test" not in repr(vars(env))
    server.tell(key="another")
    (error,) = rewards(env, ["2"])
    assert isinstance(error, UsageError) and "refuses model='judge': HTTP 401" in str(error)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"url": None}, "needs url=.* and model="),
        ({"model": ""}, "needs url=.* and model="),
        ({"url": "localhost:8000"}, "url must be http"),
        ({"url": "http://127.0.0.1:9"}, "url='http://127.0.0.1:9/v1' does not answer"),
        ({"scale": [10, 0]}, "scale must be"),
        ({"scale": [1]}, "scale must be"),
        ({"verdict": "xml"}, "verdict must be one of json, boxed, number"),
        ({"rubric": "{response} {reference}"}, "there is no reference_column"),
        ({"retries": -1}, "retries must be an integer from 0"),
        ({"in_flight": 0}, "in_flight must be an integer from 1"),
        ({"timeout": 0}, "timeout must be seconds above 0"),
        ({"reference_column": "missing"}, "no column 'missing'"),
    ],
)
def test_wrong_arguments_are_one_line(change: dict[str, Any], why: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=why) as e:
        JudgeEnv(**{**kwargs, **change})
    assert "\n" not in str(e.value)


def test_a_cache_that_is_no_cache_is_one_line(kwargs: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "text.sqlite"
    file.write_text("something else" * 100)
    (error,) = rewards(JudgeEnv(**{**kwargs, "cache": str(file)}), ["1"])
    assert isinstance(error, UsageError) and str(error).startswith(f"cache='{file}' cannot be used")


@pytest.mark.slow
def test_several_processes_share_the_cache(kwargs: dict[str, Any], server: JudgeServer) -> None:
    """The server says something else each time, and yet both get the same."""
    server.tell(noisy=True)
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    processes = [context.Process(target=judge_forty, args=(kwargs, results)) for _ in range(2)]
    for process in processes:
        process.start()
    one, other = (results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    assert one == other and len(set(one)) > 5


# ------------------------------------------------------------------ whole runs


@pytest.fixture
def base(kwargs: dict[str, Any], tiny_model: Path) -> list[str]:
    words = [word for word in TINY if not word.startswith("env=")]
    settings = [f"env.kwargs.{name}={value}" for name, value in kwargs.items()]
    keep_all = "objective.filters.drop_zero_variance=false"
    return [*words, f"model.path={tiny_model}", "env=judge", *settings, "iterations=2", keep_all]


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_by_its_cache(base: list[str], server: JudgeServer, tmp_path: Path) -> None:
    server.tell(noisy=True)
    whole = run(base, tmp_path / "whole", "eval.every=1", "eval.problems=2", "eval.k=2")
    asked = server.asked()
    rows = read_metrics(whole / "metrics.jsonl")
    assert sum(row.get("judge/requests", 0) for row in rows) == pytest.approx(asked, abs=12)  # + validation
    assert rows[-1]["judge/seconds"] > 0 and rows[-1]["judge/failures"] == rows[-1]["judge/retries"] == 0
    run(base, tmp_path / "parts", "eval.every=1", "eval.problems=2", "eval.k=2", "iterations=1")
    train(resumed_config([f"resume={tmp_path / 'parts'}", "iterations=2"]), silent)
    assert_same_run(whole, tmp_path / "parts")
    assert server.asked() == asked
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl")[-1]["judge/cached"] == 1
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("async-steps", "verdicts"))]


@pytest.mark.slow
def test_a_server_that_dies_ends_the_run_in_a_line_and_nothing_is_lost(
    base: list[str], kwargs: dict[str, Any], server: JudgeServer, tmp_path: Path
) -> None:
    mortal = JudgeServer()
    mine = [*base, f"env.kwargs.url={mortal.url}", "env.kwargs.retries=1", "checkpoint.every=1"]
    whole = run(
        [*base, f"env.kwargs.cache={tmp_path / 'other.sqlite'}", "checkpoint.every=1"], tmp_path / "whole"
    )
    mortal.tell(die_after=40)
    with pytest.raises(
        EcrlError, match=r"Judge-v0.step failed: JudgeError: .*gave no verdict in 2 tries.*env\.on"
    ) as e:
        run(mine, tmp_path / "parts")
    assert "\n" not in str(e.value)
    mortal.close()
    again = JudgeServer(mortal.port)
    train(resumed_config([f"resume={tmp_path / 'parts'}"]), silent)
    again.close()
    one, other = history(whole), history(tmp_path / "parts")
    assert [row["rollout/reward"] for row in one] == [row["rollout/reward"] for row in other]


def test_or_scores_0_and_goes_on(base: list[str], server: JudgeServer, tmp_path: Path) -> None:
    server.tell(faults=[500] * 6)
    rows = history(run([*base, "env.on_error=zero", "env.kwargs.retries=0"], tmp_path / "run"))
    assert rows[0]["rollout/env_errors"] == 6 and rows[1]["rollout/env_errors"] == 0


@pytest.mark.slow
def test_two_processes_judge(base: list[str], server: JudgeServer, tmp_path: Path) -> None:
    from ecrl.cli import main

    one = run(base, tmp_path / "one")
    asked = server.asked()
    words = [*base, "trainer.devices=2", "trainer.accelerator=cpu", f"run_dir={tmp_path / 'two'}"]
    assert main(["train", *words]) == 0
    rows, others = history(one), history(tmp_path / "two")
    assert [row["rollout/reward"] for row in rows] == pytest.approx([r["rollout/reward"] for r in others])
    assert server.asked() - asked <= 4  # the last bits of a gradient may change a token
    assert read_metrics(tmp_path / "two" / "metrics.jsonl")[0]["judge/cached"] == 1
