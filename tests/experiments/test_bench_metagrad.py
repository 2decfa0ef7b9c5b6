"""Tests for experiments.bench_metagrad and its peers."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import bench_metagrad
from experiments.benchmarks import metagrad as bench
from experiments.benchmarks import metagrad_compare, metagrad_peak
from experiments.benchmarks.metagrad_cases import PRESETS, Preset, adjoint_of, cases
from experiments.benchmarks.metagrad_own import own_cases, own_preset
from experiments.benchmarks.rows import row_key
from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig
from tests.commands import in_process
from third_party.peers import plain_jax, problem

SIZE = problem.Size(2, 16, 24, 4, 2, 32, 2, 4, 8, 2)
draw = jax.jit(problem.draw, static_argnums=1)


def test_cases_have_distinct_keys():
    for preset in PRESETS.values():
        keys = [
            row_key(bench.row_of(case, dataclasses.replace(preset.size, examples=case.examples or 3), "float32"))
            for case in cases(preset)
        ]
        assert len(set(keys)) == len(keys)


def test_torch_peers_agree_with_plain_jax():
    torch_peers = pytest.importorskip("third_party.peers.torch_peers")
    data = draw(jax.random.key(0), SIZE)
    data.params["layers"]["mlp"]["up_proj"]["b"] += 0.1
    reference = jax.jit(lambda data: plain_jax.weight_gradient(SIZE, data, optax.sgd(0.5), 2))(data)
    found = torch_peers.double_backward(SIZE, data, 0.5, 2)
    assert np.linalg.norm(found - reference) < 1e-4 * np.linalg.norm(reference)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Directory of a small benchmark whose cases are chosen by flags, and its metagrad.json."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", Preset(SIZE, rounds=2, loss_chunk=4, chunk=2, wide=8, torch=True))
        given = {"adjoints": ["weighted", "first_order"], "policies": ["plain"], "layers": 1, "examples": 2, "tasks": 2}
        options = bench.Options(peaks="none", profile=out / "traces")
        bench_metagrad.run("tiny", out, "a test", given=given, options=options)
        first = json.loads((out / "metagrad.json").read_text(encoding="utf-8"))
        bench_metagrad.run("tiny", out, "a test", given=given, options=bench.Options(peaks="none"))
        with pytest.raises(ValueError, match="give another --out"):
            bench_metagrad.run("tiny", out, "another machine", given=given)
    return out, first


def test_run_measures_exact_and_biased_cases(measured):
    exact, biased = measured[1]["rows"]
    assert (exact["adjoint"], exact["policy"], exact["K"], exact["m"], exact["tasks"]) == ("weighted", "plain", 2, 2, 2)
    assert len(exact["times"]) == 2
    assert exact["seconds"] == pytest.approx(sum(exact["times"]) / 2)
    assert exact["temp_bytes"] > 0
    assert exact["rel_error"] < 1e-4 < biased["rel_error"]


def test_finished_run_is_not_repeated(measured):
    out, first = measured
    assert json.loads((out / "metagrad.json").read_text(encoding="utf-8")) == first


def test_results_have_all_formats(measured):
    out, first = measured
    page = (out / "metagrad.md").read_text(encoding="utf-8")
    assert page.startswith("Machine: a test;")
    assert "--adjoints=weighted,first_order --policies=plain --layers=1" in page
    assert "| weighted | plain | sgd | 2 | 2 |" in page
    rows = list(csv.DictReader((out / "metagrad.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(time) for time in rows[0]["times"].split()] == first["rows"][0]["times"]
    assert (out / "metagrad.png").stat().st_size > 1000
    assert (out / "metagrad.svg").stat().st_size > 1000


def test_profile_has_trace_and_memory(measured):
    folders = sorted(path.name for path in (measured[0] / "traces").iterdir())
    assert folders == ["first_order_plain_sgd_K_2", "weighted_plain_sgd_K_2"]
    for folder in folders:
        assert list((measured[0] / "traces" / folder).rglob("*.xplane.pb"))
        assert (measured[0] / "traces" / folder / "memory.prof").stat().st_size


def test_compare_prints_ratios_and_lists_the_rest(measured, tmp_path):
    out, first = measured
    changed = json.loads(json.dumps(first)) | {"machine": "another"}
    changed["rows"][0]["times"] = [3 * time for time in first["rows"][0]["times"]]
    changed["rows"][0]["temp_bytes"] *= 2
    changed["rows"][1]["policy"] = "block remat"
    (tmp_path / "new.json").write_text(json.dumps(changed))
    done = in_process("bench_metagrad", f"--compare={out}/metagrad.json,{tmp_path}/new.json")
    assert "Different devices: a test (old), another (new)." in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("| weighted"))
    assert row.startswith("| weighted, plain, sgd, K=2, m=2 | 3.00 | ")
    assert row.endswith(" | 2, 2 | 2.00 |")
    assert "Only in the old file:\n\n- first_order, plain" in done.stdout
    assert "Only in the new file:\n\n- first_order, block remat" in done.stdout


def test_interval_covers_the_ratio():
    rng = np.random.default_rng(0)
    old, new = rng.normal(1.0, 0.05, 30), rng.normal(1.5, 0.05, 30)
    low, high = metagrad_compare.interval(old, new)
    assert 1.4 < low < 1.5 < high < 1.6


def test_results_of_a_python_benchmark_are_compared(tmp_path):
    row = {"case": "exact", "adjoint": "MixedMode()", "times": [1.0], "seconds": 1.0, "temp_bytes": 8}
    (tmp_path / "a.json").write_text(json.dumps({"machine": "cpu", "rows": [row]}))
    assert "| exact | 1.00 |  | 1, 1 | 1.00 |" in metagrad_compare.compare(tmp_path / "a.json", tmp_path / "a.json")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compare=a.json"], "must be two files"),
        (["--compare=missing.json,missing.json"], "missing.json: No such file"),
        (["--out=x", "--adjoints=weigthed"], "--adjoints: 'weigthed' is unknown; did you mean 'weighted'?"),
        (["--out=x", "--adjoints=truncated"], "--adjoints: 'truncated' needs a number"),
        (["--out=x", "--policies=stop"], "--policies: 'stop' is unknown; did you mean 'step'?"),
        (["--out=x", "--adjoints=first_order", "--policies=step"], "applies to none of first_order"),
        (["--out=x", "--width=100"], "--width=100 is not a multiple of 64"),
        (["--out=x", "--inner_optimizer=sdg"], "--inner_optimizer='sdg'"),
        (["--out=x", "--hf_config=nowhere"], "--hf_config='nowhere' has no config.json"),
        (["--out=x", "--tasks=2", "--peers"], "--peers needs"),
        (["--out=x", "--preset=wall", "--layers=2"], "--layers does not apply to --preset=wall"),
    ],
)
def test_invalid_flags_end_in_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = in_process("bench_metagrad", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_own_cases_combine_adjoints_and_policies():
    found = own_cases(
        ["truncated:2", "weighted"], ["plain", "recursive+example_chunk:5+product_chunk:2+remat:dots"], 12
    )
    assert [(case.adjoint, case.policy) for case in found] == [
        ("truncated:2", "plain"),
        ("weighted", "plain"),
        ("weighted", "recursive, dots remat, chunk=4, product_chunk=2"),
    ]
    assert [adjoint_of(case) for case in found[1:]] == [mg.WeightedMixedMode(), mg.WeightedMixedMode("recursive")]


def test_shapes_of_flags_reach_the_model(tmp_path):
    config = {"vocab_size": 99, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "head_dim": 8}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-4, "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = {"hf_config": str(tmp_path / "config.json"), "layers": 2, "lora_rank": 0, "inner_optimizer": "adam(0.01)"}
    preset = own_preset(PRESETS["cpu"], given)
    assert preset.size.config("block") == dataclasses.replace(
        LlamaConfig.from_directory(tmp_path), num_hidden_layers=2, remat="block"
    )
    assert (preset.size.rank, preset.optimizer, preset.has_peers, preset.float64) == (0, "adam(0.01)", False, False)
    wide = own_preset(PRESETS["cpu"], {"width": 512}).size
    assert (wide.width, wide.ff, wide.heads, wide.kv_heads) == (512, 1408, 16, 8)
    with pytest.raises(UserError, match="--width=64 does not apply to --hf_config"):
        own_preset(PRESETS["cpu"], given | {"width": 64})


def test_standard_cases_take_steps_and_optimizer():
    found = cases(own_preset(PRESETS["cpu"], {"inner_steps": 3, "inner_optimizer": "adagrad"}))
    assert {case.num_steps for case in found} == {3, 8}
    assert {case.optimizer for case in found} == {"adagrad", "adamw"}


@pytest.mark.skipif(not metagrad_peak._RESET.exists(), reason="needs /proc")
def test_peak_counts_what_a_call_touches():
    size = 64 * 2**20
    assert 0.9 * size < metagrad_peak.peak_of(lambda: np.ones(size, np.uint8).sum()) < 1.5 * size


def test_problem_without_rank_has_no_adapter():
    data = draw(jax.random.key(0), dataclasses.replace(SIZE, rank=0, tied=True))
    assert data.base == {}
    losses_of = problem.example_losses(dataclasses.replace(SIZE, rank=0, tied=True), {})
    losses_M = jax.jit(losses_of)(data.params, data.tokens_MT)
    # Tokens are random and weights small, so every loss is close to the log of the vocabulary size.
    np.testing.assert_allclose(losses_M, jnp.full(4, np.log(32.0)), atol=0.2)
