"""Tests of the fuzz command on a few texts."""

import re

import pytest

from experiments.stress.fuzz import SomeToWorkers, measure, run, table
from experiments.stress.fuzz_texts import KINDS, MAX_CHARS, fragments, make_text
from mass_jax.runtime import Stop
from mass_jax.tasks.base import Verdict
from mass_jax.tasks.math import Limits, Pool


def test_run_finds_no_violations(tmp_path):
    figures = {}
    run(500, 1, 250.0, SomeToWorkers(None, 0.0), tmp_path, figures, Stop())
    assert not list(tmp_path.iterdir()), table(figures)
    assert all(known.texts == 500 for name, known in figures.items() if name != "workers")
    assert all(sum(known.outcomes.values()) == 500 for name, known in figures.items() if name != "workers")


def test_run_saves_slow_texts(tmp_path):
    figures = {}
    run(2, 1, 0.0, SomeToWorkers(None, 0.0), tmp_path, figures, Stop())
    assert figures["final_answer"].slow == 2
    saved = (tmp_path / "violations" / "1-final_answer-slow.txt").read_text(encoding="utf-8", errors="surrogatepass")
    assert saved == make_text(1, 1)[1]


def test_measure_interrupts_stuck_reader():
    pattern = re.compile(r"(?:[a-z]+ ?)+!")
    outcome, spent = measure(lambda text: str(pattern.match(text)), "word " * 40, 50.0, stuck_seconds=1)
    assert (outcome, spent) == ("stuck", 1000.0)


def test_measure_reports_raising_reader():
    assert measure(lambda text: str(int(text)), "9" * 5000, 50.0)[0].startswith("lost: ValueError")


def test_measure_finds_deep_recursion():
    def depth(text):
        return depth(text[1:]) if text else "done"

    assert measure(depth, "x" * 100, 50.0)[0] == "done"
    assert measure(depth, "x" * 900, 50.0)[0].startswith("lost: RecursionError")


def test_submit_forwards_share_to_workers():
    with Pool(1, Limits(cpu_seconds=1.0, wall_seconds=60.0)) as pool:
        some = SomeToWorkers(pool, 0.5)
        futures = [some.submit(r"\sqrt{8}", r"2\sqrt{2}") for _ in range(4)]
        assert [future and future.result() for future in futures] == [None, Verdict.RIGHT] * 2
    assert (some.left, len(some.pending)) == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_make_text_respects_length_limit(kind):
    number = list(KINDS).index(kind)
    texts = [make_text(3, number + i * len(KINDS)) for i in range(20)]
    assert {name for name, _ in texts} == {kind}
    assert all(0 < len(text) <= MAX_CHARS for _, text in texts)


def test_fragments_include_patterns():
    assert {"\\boxed", "problem", "####"} <= set(fragments())
