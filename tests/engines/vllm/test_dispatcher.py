"""How requests are spread over replicas and sent again, over real HTTP; needs no vLLM."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence

import pytest

from ecrl.engines.base import Completion, Request, Sampling
from ecrl.engines.vllm import dispatcher as module
from ecrl.engines.vllm.dispatcher import Dispatcher
from ecrl.engines.vllm.http_thread import HTTPThread, most_connections
from ecrl.engines.vllm.replica import Replica
from ecrl.errors import EcrlError
from tests.support.scripted_server import TOKEN, ScriptedServer


@pytest.fixture
def servers() -> Iterator[list[ScriptedServer]]:
    started = [ScriptedServer() for _ in range(2)]
    yield started
    for server in started:
        server.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PULSE", 0.1)
    monkeypatch.setattr(module, "_PAUSE", 0.05)


class Client:
    """A dispatcher with its thread, and what it said."""

    def __init__(
        self, servers: Sequence[ScriptedServer], in_flight: int, timeout: float, connections: int = 1000
    ) -> None:
        self.http, self.said = HTTPThread(TOKEN), list[str]()
        self.dispatcher = Dispatcher(self.http, in_flight, timeout, self.said.append)
        replicas = [Replica(server.url, 5.0) for server in servers]
        statuses = [self.http.run(replica.status(self.http.client)) for replica in replicas]
        self.dispatcher.expect(0)
        self.dispatcher.use(list(zip(replicas, statuses, strict=True)), connections)

    def submit(self, keys: Sequence[int], budgets: Sequence[int] = ()) -> None:
        samplings = [Sampling(1.0, 1.0, most) for most in budgets or [4] * len(keys)]
        self.dispatcher.submit(
            [Request(100 + key, [1, 2], key, s) for key, s in zip(keys, samplings, strict=True)], [0], 0
        )

    def wait(self, count: int) -> dict[int, Completion]:
        """Poll until so many completions are there."""
        done: dict[int, Completion] = {}
        end = time.monotonic() + 30
        while len(done) < count:
            assert time.monotonic() < end, (len(done), self.said)
            done |= self.dispatcher.poll(0.05)
        return done

    def live(self) -> list[str]:
        return [replica.url for replica in self.dispatcher.live]


@pytest.fixture
def client(servers: list[ScriptedServer]) -> Iterator[Client]:
    made = Client(servers, in_flight=4, timeout=5.0)
    yield made
    made.http.close()


def test_replicas_share_the_work_within_their_room(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.seconds = 0.02
    servers[1].max_num_seqs = 2
    client.dispatcher.use(
        [(r, client.http.run(r.status(client.http.client))) for r in client.dispatcher.live], 1000
    )
    client.submit(range(20))
    client.submit(range(20, 32))
    done = client.wait(32)
    assert {number: c.token_ids for number, c in done.items()} == {100 + key: [key] for key in range(32)}
    assert servers[0].most <= 4 and servers[1].most <= 2 and min(s.asked for s in servers) > 4
    assert client.dispatcher.poll(0.05) == [] and not client.said


def test_the_longest_go_first(servers: list[ScriptedServer]) -> None:
    client = Client(servers[:1], in_flight=1, timeout=5.0)
    client.submit([1, 2, 3, 4], budgets=[4, 8, 64, 8])
    client.wait(4)
    assert servers[0].keys == [3, 2, 4, 1]
    client.http.close()


def test_one_failed_or_slow_request_costs_no_replica(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.errors = [500]
        server.hold = {7}  # much slower than any other
    client.submit(range(16))
    client.wait(15)
    client.dispatcher.poll(1.0)
    for server in servers:
        server.hold = set()
    assert client.wait(1)[107].token_ids == [7]
    assert len(client.live()) == 2 and not client.said


def test_a_request_that_fails_everywhere_is_an_error_of_the_request(
    servers: list[ScriptedServer], client: Client
) -> None:
    for server in servers:
        server.broken, server.seconds = {3}, 0.01
    client.submit(range(16))
    with pytest.raises(EcrlError, match=r"A request failed 4 times, at last at http://\S+: it failed"):
        client.wait(16)
    assert len(client.live()) == 2 and not client.said
    # Nothing is open, and the servers are asked for more.
    client.submit([40, 41])
    assert set(client.wait(2)) == {140, 141}


def test_a_refused_request_is_an_error_at_once(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.refuse = {3}
    client.submit(range(4))
    with pytest.raises(EcrlError, match="refuses a request: a prompt like this"):
        client.wait(4)
    assert len(client.live()) == 2 and sum(server.keys.count(3) for server in servers) == 1


def test_the_other_does_what_a_dead_one_left(servers: list[ScriptedServer], client: Client) -> None:
    servers[0].hold = set(range(100))
    client.submit(range(12))
    time.sleep(0.2)
    servers[0].close()
    assert len(client.wait(12)) == 12
    assert client.live() == [servers[1].url]
    (line,) = client.said
    assert f"{servers[0].url} is left out: a request failed" in line and "Servers left: 1" in line


@pytest.mark.parametrize("fault", ["restarted", "stale", "foreign", "stuck", "always fails"])
def test_what_costs_a_replica(servers: list[ScriptedServer], fault: str) -> None:
    client, bad = Client(servers, in_flight=4, timeout=0.6), servers[0]
    if fault == "restarted":
        bad.boot, bad.hold = "second", set(range(100))
    elif fault in ("stale", "foreign"):
        bad.version = -1 if fault == "stale" else 3
    elif fault == "stuck":
        bad.stuck, bad.hold = True, set(range(100))
    else:
        bad.broken, servers[1].seconds = set(range(100)), 0.1
    client.submit(range(60))
    assert len(client.wait(60)) == 60
    assert client.live() == [servers[1].url] and len(client.said) == 1
    expected = {
        "restarted": "it was restarted",
        "stale": "it answered with weights [-1], not 0",
        "foreign": "it answered with weights [3], not 0",
        "stuck": "it has processed no token for 0.6 s",
        "always fails": "5 requests in a row failed",
    }
    assert expected[fault] in client.said[0]
    client.http.close()


def test_what_is_open_goes_on_with_new_weights(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.hold = {3, 4}
    client.submit(range(6))
    assert len(client.wait(4)) == 4
    # One server gets new weights, and is asked for what the other, which is not there any more, had open.
    client.dispatcher.expect(1)
    servers[0].version = 1
    first = client.dispatcher.live[0]
    client.dispatcher.use([(first, client.http.run(first.status(client.http.client)))], 1000)
    servers[0].hold = set()
    done = client.wait(2)
    assert {number: c.weights_version for number, c in done.items()} == {103: 1, 104: 1}
    assert not client.said


def test_none_left(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.close()
    client.submit(range(8))
    with pytest.raises(EcrlError, match=r"No vLLM server is left to draw with .*resume=RUN_DIR"):
        client.wait(8)


def test_cancelled_requests_are_forgotten(servers: list[ScriptedServer], client: Client) -> None:
    for server in servers:
        server.hold = set(range(100))
    client.submit(range(12))
    client.dispatcher.cancel()
    for server in servers:
        server.hold = set()
    client.submit([50])
    assert set(client.wait(1)) == {150} and client.dispatcher.poll(0.2) == []


def test_a_limit_of_open_files_costs_no_replica(servers: list[ScriptedServer]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_connections() > 0  # raises the soft limit where it may
    raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raised >= soft
    for server in servers:
        server.seconds, server.max_num_seqs = 0.01, 256
    client = Client(servers, in_flight=256, timeout=5.0)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, hard))
    try:
        client.submit(range(200))
        assert len(client.wait(200)) == 200
        assert len(client.live()) == 2 and not client.said
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        client.http.close()
    told = Client(servers, in_flight=256, timeout=5.0, connections=20)
    assert "only 10 requests go to a server at a time; raise the limit of open files" in told.said[0]
    told.http.close()
