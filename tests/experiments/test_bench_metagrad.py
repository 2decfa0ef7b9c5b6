"""Tests for experiments.bench_metagrad and its peers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import bench_metagrad
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks.rows import row_key
from third_party.peers import plain_jax, problem

SIZE = problem.Size(2, 16, 24, 4, 2, 32, 2, 4, 8, 2)
draw = jax.jit(problem.draw, static_argnums=1)


def test_cases_have_distinct_keys():
    for preset in bench.PRESETS.values():
        keys = [
            row_key(bench.row_of(case, dataclasses.replace(preset.size, examples=case.examples or 3), "float32"))
            for case in bench.cases(preset)
        ]
        assert len(set(keys)) == len(keys)


def test_torch_peers_agree_with_plain_jax():
    torch_peers = pytest.importorskip("third_party.peers.torch_peers")
    data = draw(jax.random.key(0), SIZE)
    data.params["layers"]["mlp"]["up_proj"]["b"] += 0.1
    reference = jax.jit(lambda data: plain_jax.weight_gradient(SIZE, data, optax.sgd(0.5), 2))(data)
    found = torch_peers.double_backward(SIZE, data, 0.5, 2)
    assert np.linalg.norm(found - reference) < 1e-4 * np.linalg.norm(reference)


def test_run_writes_results_and_resumes(tmp_path, monkeypatch, capsys):
    preset = bench.Preset(SIZE, rounds=1, loss_chunk=4, chunk=2, wide=8)
    monkeypatch.setitem(bench.PRESETS, "tiny", preset)
    monkeypatch.setattr(bench, "cases", lambda preset: [bench.Case("WeightedMixedMode"), bench.Case("FirstOrder")])
    bench_metagrad.run("tiny", tmp_path, "a test")
    first = json.loads((tmp_path / "metagrad.json").read_text(encoding="utf-8"))
    bench_metagrad.run("tiny", tmp_path, "a test")
    assert json.loads((tmp_path / "metagrad.json").read_text(encoding="utf-8")) == first
    with pytest.raises(ValueError, match="give another --out"):
        bench_metagrad.run("tiny", tmp_path, "another machine")
    exact, biased = first["rows"]
    assert exact["seconds"] > 0
    assert exact["temp_bytes"] > 0
    assert exact["rel_error"] < 1e-4 < biased["rel_error"]
    assert (tmp_path / "metagrad.png").stat().st_size > 1000
    assert "| WeightedMixedMode | plain | sgd | 2 | 4 |" in (tmp_path / "metagrad.md").read_text(encoding="utf-8")
    assert "a test" in (tmp_path / "metagrad.md").read_text(encoding="utf-8")
    assert "FirstOrder" in capsys.readouterr().out


def test_problem_without_rank_has_no_adapter():
    data = draw(jax.random.key(0), dataclasses.replace(SIZE, rank=0, tied=True))
    assert data.base == {}
    losses_of = problem.example_losses(dataclasses.replace(SIZE, rank=0, tied=True), {})
    losses_M = jax.jit(losses_of)(data.params, data.tokens_MT)
    # Tokens are random and weights small, so every loss is close to the log of the vocabulary size.
    np.testing.assert_allclose(losses_M, jnp.full(4, np.log(32.0)), atol=0.2)
