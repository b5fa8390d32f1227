"""What the vLLM engines refuse before anything is started; needs no vLLM."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import httpx
import pytest
from transformers import Qwen2Config

from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.engines.base import Request, Sampling
from ecrl.engines.vllm import own_address as addresses
from ecrl.engines.vllm.replica import Replica, Status
from ecrl.engines.vllm.requirements import (
    check_groups,
    check_split,
    is_old,
    refuse_batch_invariance,
    require_vllm,
)
from ecrl.engines.vllm.weight_sync import cannot_take
from ecrl.errors import UsageError
from ecrl.policy.lora import AdapterKind

STATUS = {
    "vllm": "0.32.0",
    "boot": "x",
    "version": -1,
    "processed": 0,
    "workers": 1,
    "max_model_len": 64,
    "max_num_seqs": 8,
    "adapter_rank": 0,
    "adaptable": [],
}
GOOD = {"/status": STATUS}


@contextmanager
def answering(pages: dict[str, object]) -> Iterator[str]:
    """A server that has these pages, or statuses, and no others; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path, 404)
            self.send_response(page if isinstance(page, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refused(capsys: pytest.CaptureFixture[str], urls: str) -> str:
    assert main(["train", "engine=vllm_server", f"engine.urls=[{urls}]"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ecrl: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("found", "old"),
    [("0.28.9", True), ("0.29.0rc1", False), ("0.32.0+cpu", False), ("1.0", False), ("0.1.dev7+gabc", True)],
)
def test_which_versions_are_too_old(found: str, old: bool) -> None:
    assert is_old(found) == old


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ({"/status": {**STATUS, "vllm": "0.28.1"}}, "runs vLLM 0.28.1; 0.29 or later"),
        ({"/status": 401}, "does not accept this run's secret (401): ECRL_SERVER_TOKEN must be the same"),
        ({"/status": {**STATUS, "vllm": "a fine one"}}, "answers, but is not an `ecrl serve`"),
        ({"/status": {**STATUS, "processed": "7"}}, "answers, but is not an `ecrl serve`"),
        ({"/status": "welcome"}, "answers, but is not an `ecrl serve`"),
        ({"/status": []}, "answers, but is not an `ecrl serve`"),
        ({**GOOD, "/model": []}, "answers, but is not an `ecrl serve`"),
        ({**GOOD, "/model": {"dtype": "x"}}, "answers, but is not an `ecrl serve`"),
        ({**GOOD, "/model": 500}, "cannot describe its model (it answers 500)"),
        ({"/": "welcome"}, "was not started by this version's `ecrl serve` (it answers 404)"),
    ],
)
def test_another_server(pages: dict[str, object], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(pages) as url:
        assert says in refused(capsys, url)


@pytest.mark.parametrize(
    "nonsense", [[], {"tokens": "AA"}, {"tokens": "", "logprobs": "", "finish": "x", "versions": []}]
)
def test_one_that_talks_nonsense_in_mid_run(nonsense: object) -> None:
    async def ask(url: str) -> None:
        replica, request = Replica(url, 5.0), Request(0, [1], 0, Sampling())
        async with httpx.AsyncClient() as client:
            for answer in (
                replica.receipts(client, {}),
                replica.probe(client, [1, 2]),
                replica.complete(client, request, [1]),
            ):
                with pytest.raises(httpx.HTTPError, match="answers, but is not"):
                    await answer

    with answering({"/generate": nonsense, "/probe": nonsense, "/weights/receipts": nonsense}) as url:
        asyncio.run(ask(url))


@pytest.mark.parametrize("token", ["", "short", "with spaces in between", "ünprintable-ünprintable"])
def test_a_run_needs_the_secret(
    token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECRL_SERVER_TOKEN", token)
    with answering(GOOD) as url:
        error = refused(capsys, url)
    assert "ECRL_SERVER_TOKEN" in error and "openssl rand -hex 32" in error
    assert not token or token not in error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "node7"])
def test_a_server_for_others_needs_the_secret(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECRL_SERVER_TOKEN", raising=False)
    assert main(["serve", "model.path=x", f"host={host}"]) == 2
    error = capsys.readouterr().err
    assert f"`ecrl serve host={host}` needs the secret" in error and error.count("\n") == 1


@pytest.mark.parametrize("here", ["127.0.0.1", "::1"])
def test_the_address_that_replicas_are_told(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET6 if ":" in here else socket.AF_INET) as probe:
        try:
            probe.bind((here, 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
    assert addresses.own_address([here]) == here
    # A second one, elsewhere, could not reach a loopback address.
    monkeypatch.setattr(addresses, "_address_for", {here: here, "10.0.0.7": "10.0.0.1"}.__getitem__)
    assert addresses.own_address([here, "10.0.0.7"]) == "10.0.0.1"


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert f"No vLLM server answers at {url}" in refused(capsys, url)
        assert "names a server twice" in refused(capsys, f"{url},{url}/")


@pytest.mark.parametrize(
    "url",
    ["'http://[::1'", "host", "''", "'ftp://host:1'", "'http://host:99999'", "'http://'", "'http://host:x'"],
)
def test_no_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no URL of a server; write http://HOST:PORT" in refused(capsys, url)


def test_no_urls(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs the replicas that `ecrl serve` started" in refused(capsys, "")


def test_batch_invariance_is_for_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "0"):
        monkeypatch.setenv("VLLM_BATCH_INVARIANT", value)
        refuse_batch_invariance()
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    with pytest.raises(UsageError, match=r"would train with them too; set it for `ecrl serve`"):
        refuse_batch_invariance()


@pytest.mark.parametrize(
    ("kv_heads", "size", "says"),
    [
        (2, 1, None),
        (2, 2, None),
        (2, 4, None),  # two workers hold each key head
        (6, 4, r"tensor_parallel_size=4 and the model's 6 key-value heads: one must divide the other"),
        (2, 5, r"tensor_parallel_size=5 does not divide the model's 12 attention heads"),
        (2, 12, r"does not split the model's intermediate size 160 into multiples of 4"),
    ],
)
def test_what_cannot_be_split(kv_heads: int, size: int, says: str | None) -> None:
    config = Qwen2Config(num_attention_heads=12, num_key_value_heads=kv_heads, intermediate_size=160)
    with pytest.raises(UsageError, match=says) if says else nullcontext():
        check_split(config, size, "tensor_parallel_size")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trainer.devices=8"], None),
        (["trainer.devices=6"], r"tensor_parallel_size=4 does not divide the 6 processes of a node"),
        (["trainer.devices=8", "model.heads=2"], r"does not divide the model's 2 attention heads"),
        (["engine.tensor_parallel_size=0"], r"engine\.tensor_parallel_size must be at least 1, got 0"),
    ],
)
def test_processes_that_form_no_engine(words: list[str], says: str | None) -> None:
    config = build_config(["engine=vllm", "engine.tensor_parallel_size=4", *words])
    with pytest.raises(UsageError, match=says) if says else nullcontext():
        check_groups(config)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is here")
def test_a_missing_vllm_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"not installed: pip install 'ecrl\[vllm\]'"):
        require_vllm()


def test_adapters_that_a_server_cannot_take() -> None:
    status = Status(**{**STATUS, "adapter_rank": 8, "adaptable": ["o_proj", "q_proj"]})  # type: ignore[arg-type]
    assert cannot_take(status, AdapterKind(8, frozenset({"q_proj"}))) is None
    assert "model.lora.r=9" in (cannot_take(status, AdapterKind(9, frozenset({"q_proj"}))) or "")
    assert cannot_take(status, AdapterKind(1, frozenset({"q_proj", "gate"}))) == "cannot have them at gate"
