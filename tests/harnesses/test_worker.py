"""The worker answers concurrent requests in batches of one thread."""

import threading

import pytest

from mass_jax.harnesses.worker import Worker


def test_waiting_requests_share_batches_of_one_thread():
    batches, threads, first = [], set(), threading.Event()

    def run(batch):
        first.wait(10)
        batches.append(list(batch))
        threads.add(threading.get_ident())
        return [-number for number in batch]

    worker = Worker(run, batch=3)
    futures = [worker.submit(number) for number in range(8)]
    assert futures[7].cancel()
    first.set()
    assert [future.result(10) for future in futures[:7]] == [-number for number in range(7)]
    worker.close()
    assert [number for batch in batches for number in batch] == list(range(7))
    assert max(map(len, batches)) == 3
    assert len(threads) == 1


def test_an_error_ends_its_batch_only():
    def run(batch):
        if 1 in batch:
            raise ZeroDivisionError
        return list(batch)

    worker = Worker(run, batch=1)
    futures = [worker.submit(number) for number in range(3)]
    with pytest.raises(ZeroDivisionError):
        futures[1].result(10)
    assert (futures[0].result(10), futures[2].result(10)) == (0, 2)
    worker.close()
