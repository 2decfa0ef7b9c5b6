"""Tests for experiments.bench_sampling on a block of the embedded model, with real transformers and peft."""

import dataclasses
import importlib.resources
import json
import pathlib
import shutil

import jax
import pytest

pytest.importorskip("torch", reason="the benchmark's peers need torch")

from experiments import bench_sampling
from mass_jax.llama import LlamaConfig, weights

MODEL = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
SIZES = {"repeats": 2, "new": 4, "samples": 2, "rank": 2, "bandwidth": 20e9}


@pytest.fixture
def model(tmp_path):
    """Directory of the embedded model's first block: decoding unrolls the blocks, so that three compile slowly."""
    directory = shutil.copytree(MODEL, tmp_path / "model")
    config = LlamaConfig.from_directory(MODEL)
    params = weights.load(MODEL, config)
    params["layers"] = jax.tree.map(lambda leaf: leaf[:1], params["layers"])
    weights.save(directory, params, dataclasses.replace(config, num_hidden_layers=1))
    return directory


# peft uses a deprecated name of transformers.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_run_measures_every_case_once(model, tmp_path):
    result = bench_sampling.run(model, tmp_path, "a machine", **SIZES)
    bench_sampling.write(result, tmp_path)
    kept = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))
    assert set(kept["ratios"]) == {"1 sample", "2 samples", "2 tasks", "forward", "LoRA gradient"}
    assert all(len(values) == 2 for sides in kept["seconds"].values() for values in sides.values())
    text = (tmp_path / "sampling.md").read_text(encoding="utf-8")
    assert text.startswith("Machine: a machine; jax ")
    assert "a memory bandwidth of 20.0 GB/s, as given" in text
    sides = kept["bandwidth_shares"]["2 tasks"]
    assert sides["own adapters"]["bytes_per_step"] > sides["shared adapter"]["bytes_per_step"]
    assert (tmp_path / "sampling.png").stat().st_size > 1000
    assert bench_sampling.run(model, tmp_path, "a machine", **SIZES)["seconds"] == kept["seconds"]
    with pytest.raises(ValueError, match="was measured with machine a machine, not another"):
        bench_sampling.run(model, tmp_path, "another", **SIZES)
