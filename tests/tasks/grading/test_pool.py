"""Tests of the pool: hanging, dying and orphaned workers, order, threads and cleanup."""

import concurrent.futures
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.math import Limits, Pool, Verifier

RIGHT_PAIR = (r"\sqrt{12}", r"2\sqrt{3}")
WRONG_PAIR = (r"\sqrt{12}", r"3\sqrt{2}")
ENDLESS = ("1", r"\binom{999999999}{499999999}")  # computed during parsing, inside one uninterruptible call
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_pool_keeps_order(pool):
    pairs = [RIGHT_PAIR, WRONG_PAIR, ("1", "(("), WRONG_PAIR, RIGHT_PAIR]
    right, wrong, unparsable = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
    assert pool.verify(pairs) == [right, wrong, unparsable, wrong, right]


def test_pool_continues_after_timeout(pool):
    asked = pool.submit(*ENDLESS)
    assert not asked.done()  # submit does not wait
    assert asked.result() is Verdict.TIMED_OUT
    assert pool.verify([RIGHT_PAIR]) == [Verdict.RIGHT]


@linux
def test_pool_bounds_wall_time(descendants):
    before = descendants(os.getpid())
    with Pool(1, Limits(cpu_seconds=60, wall_seconds=3)) as pool:
        assert pool.verify([RIGHT_PAIR]) == [Verdict.RIGHT]
        (guard,) = (pid for pid in descendants(os.getpid()) - before if descendants(pid))
        for checker in descendants(guard):
            os.kill(checker, signal.SIGSTOP)
        assert pool.verify([RIGHT_PAIR]) == [Verdict.TIMED_OUT]
        assert pool.verify([WRONG_PAIR]) == [Verdict.WRONG]


def test_pool_retries_slow_starts(monkeypatch):
    monkeypatch.setattr("mass_jax.tasks.grading.workers.pool._START_SECONDS", 0.5)
    with Pool(1) as pool:
        assert pool.verify([RIGHT_PAIR]) == [Verdict.RIGHT]


def is_worker(pid):
    return b"mass_jax.tasks.grading.workers.worker" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_pool_verdicts_ignore_order_and_thread(pool, pairs):
    few = [(gold, answer) for gold, answer, _ in pairs[5::40]]
    expected = dict(zip(few, pool.verify(few), strict=True))

    def shuffled(seed):
        order = random.Random(seed).sample(few, len(few))
        return dict(zip(order, pool.verify(order), strict=True))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert all(verdicts == expected for verdicts in threads.map(shuffled, range(4)))


def verify_while_killing(descendants, pairs, workers, every):
    """Verifies pairs while killing a random worker or checker after every `every` results.

    Returns:
        The verdicts, and the number of killed processes.
    """
    rng, others, verdicts, killed = random.Random(1), descendants(os.getpid()), [], 0
    with Pool(workers) as pool:
        for i, future in enumerate([pool.submit(*pair) for pair in pairs]):
            if i % every == every // 2:
                victims = sorted(descendants(os.getpid()) - others)
                if victims:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    killed += 1
            verdicts.append(future.result())
    return verdicts, killed


@linux
def test_pool_survives_killed_workers(descendants):
    pairs = [RIGHT_PAIR if i % 3 else WRONG_PAIR for i in range(400)]
    verdicts, killed = verify_while_killing(descendants, pairs, workers=1, every=100)
    assert verdicts == [Verdict.RIGHT if i % 3 else Verdict.WRONG for i in range(400)]
    assert killed >= 2


@linux
@pytest.mark.slow
def test_pool_survives_many_killed_workers(descendants, pairs):
    few = [(gold, answer) for gold, answer, _ in pairs]
    with Pool(2) as pool:
        expected = pool.verify(few)
    many = [i % len(few) for i in range(2000)]
    verdicts, killed = verify_while_killing(descendants, [few[i] for i in many], workers=2, every=100)
    assert verdicts == [expected[i] for i in many]
    assert killed >= 10


@linux
@pytest.mark.slow
def test_verifier_survives_five_percent_attacks(descendants, pairs, hostile, canary):
    rng = random.Random(0)
    before = descendants(os.getpid())
    with Pool(2, Limits(cpu_seconds=0.5, wall_seconds=120)) as pool:
        verifier = Verifier(pool)
        asked, expected = [], []
        for i in range(10_000):
            gold, answer, right = rng.choice(pairs)
            attack = i % 20 == 0
            asked.append((gold, rng.choice(hostile) if attack else rf"\boxed{{{answer}}}"))
            expected.append(None if attack else right)
        verdicts = verifier.verify([gold for gold, _ in asked], [response for _, response in asked])
    assert len(verdicts) == 10_000
    plain = [(v is Verdict.RIGHT, right) for v, right in zip(verdicts, expected, strict=True) if right is not None]
    assert sum(is_right == right for is_right, right in plain) >= 0.98 * len(plain)
    assert not any(is_right and not right for is_right, right in plain)
    assert not canary.exists()
    wait_until(lambda: descendants(os.getpid()) <= before)


@linux
def test_worker_inherits_no_secrets_or_streams(descendants, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    with Pool(1) as pool:
        pool.verify([RIGHT_PAIR])
        workers = [pid for pid in descendants(os.getpid()) if is_worker(pid)]
        secret = [pid for pid in workers if b"hush" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()]
        streams = {os.readlink(f"/proc/{pid}/fd/{stream}") for pid in workers for stream in range(3)}
    assert workers
    assert not secret
    assert streams == {"/dev/null"}


ORPHAN = """
import sys, time
from mass_jax.tasks.math import Pool, Limits
pool = Pool(1, Limits(cpu_seconds=100))
pool.verify([(r"\\sqrt{12}", r"2\\sqrt{3}")])
pool.submit("1", r"\\binom{999999999}{499999999}")
print("busy", flush=True)
time.sleep(600)
"""


@linux
def test_workers_die_with_parent(descendants):
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "busy\n"
        orphans = descendants(parent.pid)
        assert len(orphans) == 2
        parent.kill()
    wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() and is_worker(pid) for pid in orphans))


@linux
def test_close_cancels_waiting_jobs(descendants):
    before = descendants(os.getpid())
    pool = Pool(1, Limits(cpu_seconds=2))
    pool.verify([RIGHT_PAIR])
    busy = pool.submit(*ENDLESS)
    waiting = [pool.submit(*RIGHT_PAIR) for _ in range(5)]
    pool.close()
    assert all(future.cancelled() for future in waiting)
    assert busy.cancelled() or busy.result() is Verdict.TIMED_OUT
    assert descendants(os.getpid()) <= before
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(*RIGHT_PAIR)


def test_pool_rejects_invalid_arguments():
    with pytest.raises(ValueError, match="workers=0"):
        Pool(0)
    with pytest.raises(ValueError, match="cpu_seconds=0"):
        Limits(cpu_seconds=0)
