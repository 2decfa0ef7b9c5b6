"""Benchmark of the verifier on this machine: `python tests/tasks/grading/measure.py [--heldout]`.

Prints the agreement with the labeled answer pairs (of the verifier and of math-verify alone), the throughput, and the
latency of the next answer after each hostile one.
"""

import json
import pathlib
import sys
import time

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.math import Limits, Pool, Verifier

HERE = pathlib.Path(__file__).parent


def rows(name):
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def agreement(verifier, name):
    pairs = rows(name)
    start = time.perf_counter()
    verdicts = verifier.verify([p["gold"] for p in pairs], [rf"\boxed{{{p['answer']}}}" for p in pairs])
    seconds = time.perf_counter() - start
    wrong = [(v, p) for v, p in zip(verdicts, pairs, strict=True) if (v is Verdict.RIGHT) != p["right"]]
    false_rights = sum(v is Verdict.RIGHT for v, _ in wrong)
    print(f"{name}: {len(pairs)} pairs, agreement {1 - len(wrong) / len(pairs):.2%}, {false_rights} false rights, "
          f"{len(pairs) / seconds:.0f} answers/s")  # fmt: skip
    for verdict, pair in wrong:
        print(f"  {verdict.value}: {pair}")


def of_math_verify(name):
    """Prints the agreement of math-verify alone, with its defaults."""
    from math_verify import parse, verify

    pairs = rows(name)
    said = [verify(parse(rf"$\boxed{{{p['gold']}}}$"), parse(rf"$\boxed{{{p['answer']}}}$")) for p in pairs]
    false_rights = sum(v and not p["right"] for v, p in zip(said, pairs, strict=True))
    agreed = sum(v == p["right"] for v, p in zip(said, pairs, strict=True))
    print(f"math-verify alone: {name}: agreement {agreed / len(pairs):.2%}, {false_rights} false rights")


def throughput(pool, verifier):
    plain = [("42", rf"So the answer is $\boxed{{{n}}}$.") for n in range(20_000)]
    start = time.perf_counter()
    verifier.verify([gold for gold, _ in plain], [response for _, response in plain])
    print(f"plain answers: {len(plain) / (time.perf_counter() - start):.0f} answers/s")
    pairs = [("42", str(n)) for n in range(4000)]
    start = time.perf_counter()
    pool.verify(pairs)
    print(f"plain answers, all through workers: {len(pairs) / (time.perf_counter() - start):.0f} answers/s")


def hostile(pool, verifier):
    texts = [r["answer"] for r in rows("hostile.jsonl")]
    texts = [t if isinstance(t, str) else "".join(piece * times for piece, times in t) for t in texts]
    slowest = behind = 0.0
    for text in texts:
        start = time.perf_counter()
        verifier.submit("42", text).result()
        middle = time.perf_counter()
        assert pool.submit(r"\sqrt{12}", r"2\sqrt{3}").result() is Verdict.RIGHT
        slowest, behind = max(slowest, middle - start), max(behind, time.perf_counter() - middle)
    print(f"{len(texts)} hostile answers: slowest {slowest:.2f} s, slowest next answer {behind:.2f} s")


if __name__ == "__main__":
    with Pool(2, Limits(cpu_seconds=2)) as pool:
        verifier = Verifier(pool)
        pool.verify([(r"\sqrt{12}", r"2\sqrt{3}")] * 2)
        for file in ["pairs.jsonl"] + ["heldout_pairs.jsonl"] * ("--heldout" in sys.argv):
            agreement(verifier, file)
            of_math_verify(file)
        throughput(pool, verifier)
        hostile(pool, verifier)
