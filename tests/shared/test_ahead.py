"""ahead.py: order, overlap, bounds and errors of a generator in its own thread."""

import threading
import time
from collections.abc import Iterator

import pytest

from stages.shared.ahead import ahead


def test_items_come_in_their_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead([])) == []


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    for item in ahead(items()):
        if item == 0:
            assert made.wait(5)


def test_no_more_items_are_made_than_may_wait() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    for item in ahead(items(), count=2):
        time.sleep(0.001)
        assert len(made) <= item + 5
    assert len(made) == 100


def test_an_error_arrives_after_the_items_ahead_of_it() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise SystemExit("models/merged: the tensor is not there")

    made = ahead(items())
    assert next(made) == 0
    with pytest.raises(SystemExit, match="the tensor is not there"):
        next(made)


def test_a_consumer_that_stops_early_leaves_no_thread_behind() -> None:
    threads = threading.active_count()

    def endless() -> Iterator[int]:
        while True:
            yield 0

    for _ in ahead(endless()):
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
