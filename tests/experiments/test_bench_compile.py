"""Benchmark of compilation: programs of a run, for this machine and for a TPU, and cases of meta-gradients."""

import json

import pytest

from tests.commands import in_process

SMALL = ("--methods=base,mass", "--tasks_per_step=8", "--eval_batch=8", "--num_examples=2", "--num_attempts=2")


def bench(*flags):
    return in_process("benchmarks.compile", *flags)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Directory of a measurement of one program, and the output."""
    out = tmp_path_factory.mktemp("measured")
    done = bench(*SMALL, "--programs=scores", f"--out={out}")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_programs_of_run_are_measured(measured):
    out, shown = measured
    (row,) = json.loads((out / "compile.json").read_text())["rows"]
    assert row["program"] == "scores of examples (8, 2, 20)"
    assert all(row[part] > 0 for part in ("trace", "lower", "compile", "lines"))
    assert (out / "compile.md").read_text() in shown
    assert "| scores of examples (8, 2, 20) |" in shown


def test_compare_prints_ratios(measured, tmp_path):
    path = measured[0] / "compile.json"
    done = bench(f"--compare={path},{path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("| 1.00 |")
    (tmp_path / "compile.json").write_text('{"rows": [{"program": "x"}]}')
    damaged = bench(f"--compare={path},{tmp_path / 'compile.json'}")
    assert "is not a compile.json of this command; measure again" in damaged.stderr


def test_meta_gradients_are_measured(tmp_path):
    done = bench("--meta_gradients=tiny", "--programs=FirstOrder (plain)", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "| FirstOrder (plain) |" in done.stdout


def test_topology_compiles_for_tpu(tmp_path):
    pytest.importorskip("libtpu")
    done = bench(*SMALL, "--topology=v5e:2x2", "--mesh=data:4", "--programs=scores", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "device `v5e:2x2`" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--out is missing; give a directory"),
        (("--compare=a.json",), "--compare=a.json needs two files"),
        (("--meta_gradients=tiny", "--programs=nothing", "--out=x"), "--programs=nothing is part of no name"),
    ],
)
def test_invalid_flags_are_named(flags, message):
    done = bench(*flags)
    assert done.returncode == 2
    assert message in done.stderr
