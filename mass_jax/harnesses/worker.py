"""A thread that answers concurrent requests in batches, since JAX programs are called from one thread."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Worker(Generic[A, B]):
    """Runs a function on batches of requests, in one thread.

    Args:
        run: function from a batch to its results, in order. An error of it is the result of every request of the batch.
        batch: largest number of requests per batch.

    >>> worker = Worker(lambda batch: [2 * number for number in batch], batch=4)
    >>> [worker.submit(number).result() for number in (1, 2)]
    [2, 4]
    >>> worker.close()
    """

    def __init__(self, run: Callable[[Sequence[A]], Sequence[B]], batch: int):
        self._run, self._batch = run, batch
        self._waiting: queue.SimpleQueue[tuple[A, Future[B]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mass_jax-harness", daemon=True)
        self._thread.start()

    def submit(self, request: A) -> "Future[B]":
        """Queues a request, which joins the next batch."""
        future: Future[B] = Future()
        self._waiting.put((request, future))
        return future

    def close(self) -> None:
        """Ends the thread after the requests that are waiting."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            taken = [self._waiting.get()]
            while taken[-1] is not None and len(taken) < self._batch and not self._waiting.empty():
                taken.append(self._waiting.get())
            open_ = taken[-1] is not None
            self._answer([one for one in taken if one is not None and one[1].set_running_or_notify_cancel()])

    def _answer(self, taken: "Sequence[tuple[A, Future[B]]]") -> None:
        """Answers one batch; futures whose requests were cancelled are not among it."""
        if not taken:
            return
        try:
            results = self._run([request for request, _ in taken])
        except BaseException as error:  # the thread must go on, and every request must end
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            future.set_result(result)
