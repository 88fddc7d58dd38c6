"""A generator that works ahead in a thread of its own, so that reading, computing and writing overlap."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], count: int = 1) -> Iterator[T]:
    """Yield the items in order while a thread already makes the next ones.

    Args:
        items: run in the thread, and closed there if the consumer stops early.
        count: how many may lie finished; one more is in the making.

    Raises:
        BaseException: what `items` raises, at the place of the item that it did not make.

    """
    finished: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None, last: bool) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                finished.put((item, error, last), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, None, False):
                    return
        except BaseException as error:  # handed on, not swallowed: SystemExit carries the user's message
            put(None, error, True)
        else:
            put(None, None, True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = finished.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
            del item
    finally:
        stopped.set()
        thread.join()
