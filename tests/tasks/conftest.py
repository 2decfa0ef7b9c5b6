"""Fixtures: answer pairs, hostile answers, and a verifier pool shared by all tests of a process."""

import json
import pathlib

import pytest

from mass_jax.tasks.math import Limits, Pool, Verifier

DATA = pathlib.Path(__file__).parent / "grading"


def read_lines(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def pool():
    with Pool(workers=1, limits=Limits(cpu_seconds=1.0, wall_seconds=120.0)) as pool:
        yield pool


@pytest.fixture(scope="session")
def verifier(pool):
    return Verifier(pool)


@pytest.fixture(scope="session")
def pairs():
    """Triples (gold, answer, whether it is correct), covering all kinds of MATH answers."""
    return [(row["gold"], row["answer"], row["right"]) for row in read_lines("pairs.jsonl")]


@pytest.fixture(scope="session")
def heldout_pairs():
    return [(row["gold"], row["answer"], row["right"]) for row in read_lines("heldout_pairs.jsonl")]


@pytest.fixture
def canary(tmp_path):
    """A file that hostile answers try to create."""
    return tmp_path / "canary"


@pytest.fixture
def hostile(canary):
    """Attacks: code, expressions that explode, floods and tricks. Long ones are stored as [text, repetitions] pairs."""
    rows = [row["answer"] for row in read_lines("hostile.jsonl")]
    texts = [row if isinstance(row, str) else "".join(text * times for text, times in row) for row in rows]
    return [text.replace("{canary}", str(canary)) for text in texts]


@pytest.fixture
def descendants():
    """A function that returns the ids of all descendants of a process."""

    def find(pid):
        parents = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:  # the process has ended
                continue
            if fields[0] != "Z":
                parents[int(path.parent.name)] = int(fields[1])
        found, last = set(), {pid}
        while last:
            last = {child for child, parent in parents.items() if parent in last}
            found |= last
        return found

    return find
