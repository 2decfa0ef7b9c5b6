"""Tests of experiments.benchmarks.long_loops: shapes of the cases, checks of the flags, and the report."""

import dataclasses
import json

import jax
import pytest

from experiments.benchmarks import long_loops, long_loops_report
from tests.commands import in_process

GPT2_PARAMETERS = 123_551_232


def test_gpt2_case_has_the_published_shapes():
    case = long_loops.CASES["gpt2"]
    # Parameters and two moments in float32, and one counter of each of AdamW's two steps.
    assert abs(long_loops.state_bytes(case) - 3 * 4 * GPT2_PARAMETERS) <= 8
    shapes = jax.eval_shape(lambda key: long_loops.draw(key, case, 96), jax.random.key(0))
    assert shapes["tokens"].shape == (96, 1024, 128)
    assert shapes["weights"].shape == (96 * 1024,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--out is missing"),
        (["--out=x", "--stores=gpu"], "--stores=gpu must name some of device, step"),
        (["--out=x", "--micro_batch=5"], "--micro_batch=5 does not divide --examples=32"),
        (["--out=x", "--heads=3"], "--heads=3 does not divide --width=64"),
        (["--out=x", "--memory_steps=two"], "--memory_steps=two must be numbers"),
    ],
)
def test_bad_flags_are_reported_in_one_line(given, message):
    done = in_process("benchmarks.long_loops", *given)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_report_shows_memory_and_times(tmp_path):
    case = long_loops.CASES["small"]
    rows = [
        {"store": store, "K": steps, "temp_bytes": size * 2**20, "compile_seconds": 3.0}
        for store, steps, size in (("device", 2, 10), ("device", 96, 400), ("host", 2, 5), ("host", 96, 6))
    ]
    result = {"machine": "a machine", "jax": "0", "case": dataclasses.asdict(case), "state_bytes": 2**20}
    result |= {"inner_steps": 96, "rows": rows, "difference": {"device": 0.0, "host": 1e-7}}
    result |= {"times": {"device": [1.0, 2.0], "host": [3.0, 5.0]}}
    long_loops_report.write(result, tmp_path)
    text = (tmp_path / "long_loops.md").read_text(encoding="utf-8")
    assert "| device, states and gradients | 10.0 | 400.0 | 3 |" in text
    assert "| host, states and gradients | 4.00 | 3.00 to 5.00 | 1.0e-07 |" in text
    assert json.loads((tmp_path / "long_loops.json").read_text(encoding="utf-8")) == result
    assert (tmp_path / "long_loops.svg").stat().st_size > 1000
