"""The channel of the weights: who is admitted, and what a lost receiver costs; needs no vLLM."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from ecrl.engines.vllm.weight_channel import BUCKET, ChannelError, Receiver, Sender, buckets

CPU, SECRET = torch.device("cpu"), "the secret of the channel"
WEIGHTS = [
    ("a", torch.randn(300, 200)),
    ("half", torch.randn(7, 3).bfloat16()),
    ("scalar", torch.tensor(3.0)),
    ("empty", torch.empty(0, 4)),
    ("b", torch.randn(1000, 1000)),
]


def receiver(sender: Sender, rank: int, token: str = SECRET) -> Receiver:
    return Receiver("127.0.0.1", sender.port, rank, 3, CPU, token, 10.0)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def opened(threads: ThreadPoolExecutor) -> tuple[Sender, list[Receiver]]:
    sender = Sender("127.0.0.1", 3, CPU, SECRET, 10.0)
    joins = [threads.submit(receiver, sender, rank) for rank in (1, 2)]
    sender.open(10.0, lambda: False)
    return sender, [join.result() for join in joins]


def taken(of: Receiver) -> dict[str, Tensor]:
    return dict(of.receive())


def test_weights_arrive_in_their_types(threads: ThreadPoolExecutor) -> None:
    sender, receivers = opened(threads)
    for _ in range(2):
        got = [threads.submit(taken, of) for of in receivers]
        sender.send(WEIGHTS)
        assert not sender.lost
        for result in got:
            weights = result.result()
            assert list(weights) == [name for name, _ in WEIGHTS]
            for name, tensor in WEIGHTS:
                assert weights[name].dtype == tensor.dtype and torch.equal(weights[name], tensor)


def test_small_tensors_travel_together() -> None:
    small, half, large = torch.zeros(100), torch.zeros(100).bfloat16(), torch.empty(BUCKET // 4 + 1)
    weights = [("a", small), ("b", small), ("c", half), ("d", half), ("e", large), ("f", small)]
    assert ["".join(name for name, _ in bucket) for bucket in buckets(weights)] == ["ab", "cd", "e", "f"]
    full = torch.empty(BUCKET // 8)  # of 4 bytes: two fill a bucket
    assert [len(bucket) for bucket in buckets([("x", full)] * 5)] == [2, 2, 1]
    assert [len(bucket) for bucket in buckets([("x", small)] * 600)] == [256, 256, 88]
    assert list(buckets([])) == []


def test_strangers_are_not_admitted_and_do_not_disturb(threads: ThreadPoolExecutor) -> None:
    sender = Sender("127.0.0.1", 3, CPU, SECRET, 10.0)
    opening = threads.submit(sender.open, 20.0, lambda: False)
    idle = [socket.create_connection(("127.0.0.1", sender.port)) for _ in range(20)]
    for garbage in (b"", b"x" * 37, b"GET / HTTP/1.1\r\n\r\n" + b"y" * 100_000):
        with socket.create_connection(("127.0.0.1", sender.port)) as stranger:
            stranger.sendall(garbage)
    with pytest.raises(ChannelError):
        receiver(sender, 1, "another secret of the channel")
    for rank in (0, 3, 4_000_000_000):  # there are no such ranks
        with pytest.raises(ChannelError):
            receiver(sender, rank)
    joins = [threads.submit(receiver, sender, rank) for rank in (1, 2)]
    opening.result()
    receivers = [join.result() for join in joins]
    # Now nobody can connect at all.
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", sender.port), timeout=1)
    got = [threads.submit(taken, of) for of in receivers]
    sender.send(WEIGHTS)
    assert all(len(result.result()) == len(WEIGHTS) for result in got)
    for connection in idle:
        connection.close()


def test_an_answer_to_another_challenge_is_worth_nothing(threads: ThreadPoolExecutor) -> None:
    """A stranger who saw one introduction repeats it."""
    seen: list[bytes] = []
    sender = Sender("127.0.0.1", 3, CPU, SECRET, 10.0)
    opening: Future[None] = threads.submit(sender.open, 10.0, lambda: bool(seen))

    def listen(through: socket.socket) -> None:
        client, _ = through.accept()
        with client, socket.create_connection(("127.0.0.1", sender.port)) as server:
            client.sendall(server.recv(32))
            seen.append(client.recv(37))

    with socket.create_server(("127.0.0.1", 0)) as through:
        listener = threading.Thread(target=listen, args=(through,))
        listener.start()
        with pytest.raises(ChannelError):
            Receiver("127.0.0.1", through.getsockname()[1], 1, 3, CPU, SECRET, 10.0)
        listener.join()
    with pytest.raises(ChannelError):
        opening.result()
    again = Sender("127.0.0.1", 3, CPU, SECRET, 10.0)
    opening = threads.submit(again.open, 2.0, lambda: False)
    with socket.create_connection(("127.0.0.1", again.port)) as stranger:
        stranger.recv(32)
        stranger.sendall(seen[0])
        assert stranger.recv(1) == b""
    with pytest.raises(ChannelError, match="not all servers connected"):
        opening.result()


def test_one_that_is_lost_costs_the_others_nothing(threads: ThreadPoolExecutor) -> None:
    sender, receivers = opened(threads)
    got = threads.submit(taken, receivers[1])

    def weights() -> Iterator[tuple[str, Tensor]]:
        for number, pair in enumerate([*WEIGHTS, *WEIGHTS]):
            if number == 2:
                receivers[0].close()
            yield pair

    sender.send(weights())
    assert sender.lost == {1} and len(got.result()) == len(WEIGHTS)


def test_one_that_stands_still_is_given_up_from_outside(threads: ThreadPoolExecutor) -> None:
    sender, receivers = opened(threads)
    got = threads.submit(taken, receivers[1])
    timer = threading.Timer(0.3, sender.drop, (1,))
    timer.start()
    start = time.monotonic()
    sender.send([("big", torch.zeros(20_000_000))])  # more than fits into the buffers
    assert sender.lost == {1} and len(got.result()) == 1 and time.monotonic() - start < 8
    with pytest.raises(ChannelError):
        taken(receivers[0])


def test_a_sender_that_ends_is_noticed(threads: ThreadPoolExecutor) -> None:
    sender, receivers = opened(threads)
    got = [threads.submit(taken, of) for of in receivers]
    sender.close()
    for result in got:
        with pytest.raises(ChannelError, match=r"hung up|gone"):
            result.result()
