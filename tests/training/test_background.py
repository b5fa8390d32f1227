"""Calls in a thread: in order, bounded, complete at the end, errors in the loop."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from ecrl.training.background import Background


def test_calls_come_in_order_and_closing_waits_for_all() -> None:
    background, done, go = Background(8), list[int](), Event()
    background.submit(go.wait)
    for number in range(5):
        background.submit(done.append, number)
    assert done == []
    go.set()
    background.close()
    assert done == [0, 1, 2, 3, 4]


def test_a_full_queue_makes_the_loop_wait() -> None:
    background, go, passed = Background(2), Event(), Event()
    background.submit(go.wait)
    background.submit(go.wait)

    def third() -> None:
        background.submit(int)
        passed.set()

    thread = Thread(target=third)
    thread.start()
    assert not passed.wait(0.1)
    go.set()
    thread.join()
    assert passed.is_set()
    background.close()


def test_an_error_is_raised_in_the_loop() -> None:
    background = Background(8)
    with pytest.raises(ValueError, match="seven"):
        background.submit(int, "seven")
        background.submit(int, "7")
        background.close()
