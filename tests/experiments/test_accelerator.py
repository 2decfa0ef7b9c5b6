"""Benchmark of a lent accelerator: rows are written as they are measured, and a failure is a row of its own."""

import dataclasses
import json
import math
import statistics
import subprocess

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import accelerator, accelerator_report
from experiments.benchmarks.accelerator_run import AGAIN, NOT_REACHED, Group, Rows, Runner, timed
from experiments.benchmarks.accelerator_shapes import PRESETS, SMOLLM2
from mass_jax.llama import Llama
from mass_jax.metagrad.benchmark_runs import Budget
from tests.commands import ROOT, in_process

SMALLEST = dataclasses.replace(PRESETS["cpu"], large=PRESETS["cpu"].small, copied_bytes=2**18)


def lines_of(out):
    return [json.loads(line) for line in (out / accelerator_report.LINES).read_text().splitlines()]


def group(**functions):
    """A group that times functions of one array."""
    ones = jnp.ones(3)
    traces = {name: lambda function=function: jax.jit(function).trace(ones) for name, function in functions.items()}
    return Group(traces, lambda programs: timed({n: lambda p=p: p(ones) for n, p in programs.items()}, repeats=2))


def refuse(x):
    raise ValueError("no such case\nand more")


@pytest.mark.usefixtures("no_compilation_cache")
def test_runner_writes_failures_as_rows(tmp_path):
    broken = dataclasses.replace(group(c=jnp.cos), measure=lambda programs: programs["other"])
    late = dataclasses.replace(group(d=jnp.tan), alone=True)
    rows = Rows(tmp_path / accelerator_report.LINES, {"device": "a card"})
    assert Runner(rows, Budget(), threads=2).run([group(a=jnp.sin, b=refuse), broken, late])
    found = {row["case"]: row for row in lines_of(tmp_path)}
    assert found["b"]["error"] == "ValueError: no such case"
    assert found["c"]["error"] == "KeyError: 'other'"
    for name in ("a", "d"):
        assert len(found[name]["times"]) >= 2
        assert {"trace_seconds", "lower_seconds", "compile_seconds", "temp_bytes", "argument_bytes"} <= set(found[name])
    assert [row["device"] for row in found.values()] == ["a card"] * 4


@pytest.mark.usefixtures("no_compilation_cache")
def test_runner_measures_disturbed_groups_again(tmp_path):
    times = iter([[0.02, 0.05, 0.05], [0.02, 0.02, 0.02]])

    def measure(programs):
        found = next(times)
        return {name: {"seconds": statistics.median(found), "times": found} for name in programs}

    rows = Rows(tmp_path / accelerator_report.LINES, {})
    assert Runner(rows, Budget(), threads=1).run([dataclasses.replace(group(a=jnp.sin), measure=measure)])
    assert [(row["case"], row["seconds"]) for row in lines_of(tmp_path)] == [("a", 0.05), (f"a{AGAIN}", 0.02)]


def test_runner_without_time_names_cases_not_reached(tmp_path):
    rows = Rows(tmp_path / accelerator_report.LINES, {})
    Runner(rows, Budget(0.0), threads=1).run([group(a=jnp.sin), dataclasses.replace(group(b=jnp.cos), alone=True)])
    assert [(row["case"], row["error"]) for row in lines_of(tmp_path)] == [("a", NOT_REACHED), ("b", NOT_REACHED)]


def test_measured_cases_have_rates(tmp_path):
    accelerator.measure(SMALLEST, tmp_path, Budget(), 1, only=("copy", "products saved", "8B: 4 samples, one adapter"))
    found = {row["case"]: row for row in lines_of(tmp_path)}
    assert not [row for row in found.values() if "error" in row]
    inner, decoding = (
        found["8B: inner gradient, products saved, no chunks, adapter products in bfloat16"],
        found["8B: 4 samples, one adapter"],
    )
    assert inner["tflops"] > 0
    assert math.isclose(decoding["decoded_tokens_per_second"], 4 / decoding["step_seconds"])
    assert 0 < decoding["share_of_bandwidth_limit"] < 1
    for row in (inner, decoding):
        assert row["profile"]["count"] > 0
        assert any("proj" in name for name, _, _ in row["profile"]["by_source"])
    text = (tmp_path / accelerator_report.MARKDOWN).read_text()
    assert "tokens/s" in text
    assert 'One call of "8B: 4 samples, one adapter" under the profiler' in text
    assert json.loads((tmp_path / accelerator_report.JSON).read_text())["rows"] == lines_of(tmp_path)


def test_peers_add_rows(tmp_path):
    accelerator_peers = pytest.importorskip("experiments.benchmarks.accelerator_peers")
    accelerator_peers.measure(SMALLEST, tmp_path, Budget())
    found = lines_of(tmp_path)
    assert [row.get("error") for row in found] == [None] * 3
    assert [row["case"].partition(", ")[0] for row in found] == ["1B: PyTorch double backward"] + [
        "8B: transformers.generate"
    ] * 2
    assert found[1]["tokens_per_second"] > 0


def test_smollm2_shape_has_published_parameters():
    shapes = jax.eval_shape(Llama(SMOLLM2).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 134_515_008


def test_missing_out_is_named():
    done = in_process("benchmarks.accelerator")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out is missing; give a directory")


def test_script_is_valid_bash():
    subprocess.run(["bash", "-n", ROOT / "experiments/benchmarks/accelerator.sh"], check=True)
