"""Tests of scoring in worker processes: gold answers, hostile answers, limits."""

import json

import pytest

from mass_jax.tasks.base import Problem, Verdict
from mass_jax.tasks.grading.workers.limits import Limits
from mass_jax.tasks.grading.workers.pool import Processes
from mass_jax.tasks.reasoning import Scorer
from mass_jax.tasks.reasoning.bank import Bank, Scored, Side
from mass_jax.tasks.reasoning.catalogue import FITTING


def request(family, entry, answer):
    return json.dumps([family, "easy", entry, answer]).encode() + b"\n"


@pytest.fixture(scope="module")
def drawn():
    """One problem of each family, and the data for scoring it."""
    bank = Bank("easy")
    problems = bank.draw(dict.fromkeys((*FITTING, "coin_flip"), 1), Side.TRAIN, 1)
    return {family: (found[0], bank.scored[found[0].id]) for family, found in problems.items()}


def test_gold_answers_score_right_in_worker(processes, drawn):
    asked = {f: processes.send(request(f, s.entry, s.entry["answer"])) for f, (_, s) in drawn.items()}
    assert {family: future.result() for family, future in asked.items()} == dict.fromkeys(asked, Verdict.RIGHT)


def test_wrong_answers_score_wrong(drawn):
    scorer = Scorer("easy", {problem.id: scored for problem, scored in drawn.values()}, workers=1)
    asked = {family: scorer.submit(problem, "qqq 987654321") for family, (problem, _) in drawn.items()}
    verdicts = {family: future.result() for family, future in asked.items()}
    scorer.close()
    assert Verdict.RIGHT not in verdicts.values()


def test_partial_scores_count_as_wrong(processes, drawn):
    _, scored = drawn["family_relationships"]
    hedged = f"{scored.entry['answer']} or not"
    assert processes.send(request("family_relationships", scored.entry, hedged)).result() is Verdict.WRONG


HOSTILE = {
    "time": ("simple_integration", "9**9**9**9"),
    "memory": ("puzzle24", "'x' * 10**11"),
    "nesting": ("countdown", "(" * 900),
    "code": ("string_insertion", "[open({canary!r}, 'w').close()]"),
    "sympy code": ("polynomial_multiplication", "__import__('os').system('touch {canary}')"),
    "digits": ("chain_sum", "9" * 1000),
    "exponent": ("decimal_chain_sum", "1e999999999"),
    "fraction": ("coin_flip", "1/0"),
    "braces": ("fraction_simplification", "$" + "\\frac{" * 150),
    "surrogates": ("basic_arithmetic", "\ud800" * 300),
}


@pytest.mark.parametrize(("family", "answer"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_not_right(processes, canary, family, answer):
    entry = {"question": "q", "answer": "1", "metadata": {"integrand": "x", "variable": "x", "numbers": [1, 2, 3, 4]}}
    verdict = processes.send(request(family, entry, answer.replace("{canary}", str(canary)))).result()
    assert verdict is not Verdict.RIGHT
    assert not canary.exists()


BOMBS = """
from mass_jax.tasks.base import Verdict
from mass_jax.tasks.reasoning.program import warm_up


def check(line):
    command = line.strip()
    if command == b"time":
        while True:
            pass
    if command == b"memory":
        return Verdict.RIGHT if bytearray(4 << 30) else Verdict.WRONG
    if command == b"depth":
        def deeper(n):
            return deeper(n + 1)
        deeper(0)
    return Verdict.RIGHT
"""


def test_limits_bound_scorers(tmp_path, monkeypatch):
    (tmp_path / "bombs.py").write_text(BOMBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Processes("bombs", workers=1, limits=Limits(cpu_seconds=0.5, wall_seconds=60.0)) as processes:
        asked = [processes.send(line + b"\n") for line in (b"time", b"memory", b"depth", b"fine")]
        verdicts = [future.result() for future in asked]
    assert verdicts == [Verdict.TIMED_OUT, Verdict.TIMED_OUT, Verdict.UNPARSABLE, Verdict.RIGHT]


def test_scorer_decides_without_workers():
    problem = Problem("p", "q", "yes", "yes")
    scorer = Scorer("easy", {"p": Scored("syllogism", True, {"question": "q", "answer": "yes", "metadata": {}})})
    answers = ("yes", "no", "", "y" * 2000)
    assert [scorer.submit(problem, answer).result() for answer in answers] == [
        Verdict.RIGHT,
        Verdict.WRONG,
        Verdict.UNPARSABLE,
        Verdict.UNPARSABLE,
    ]
    assert scorer.submit(Problem("unknown", "q", "1", "1"), "2").result() is Verdict.WRONG
    scorer.close()
    with pytest.raises(RuntimeError, match="closed"):
        scorer.submit(problem, "yes")


def test_requests_longer_than_a_pipe_are_refused(processes):
    assert processes.send(b"x" * 100_000 + b"\n").result() is Verdict.UNPARSABLE
