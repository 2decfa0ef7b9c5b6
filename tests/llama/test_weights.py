"""Model directories: exact round trips, sharded reading, and errors."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers

from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig, weights
from mass_jax.llama.names import entries


@pytest.fixture
def directory(config, make_params, tmp_path):
    weights.save(tmp_path, make_params(config), config)
    return tmp_path


def _edit(directory, change):
    file = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip_is_bit_identical(config, make_params, tmp_path, changes, dtype):
    config = dataclasses.replace(config, **changes)
    params = jax.tree.map(lambda x: x.astype(dtype), make_params(config))
    weights.save(tmp_path, params, config)
    again = weights.load(tmp_path, LlamaConfig.from_directory(tmp_path), dtype)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), again, params)
    weights.save(tmp_path / "again", again, config)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_shards_written_by_transformers_load(config, directory, make_params):
    theirs = transformers.LlamaForCausalLM.from_pretrained(directory)
    theirs.save_pretrained(directory / "shards", max_shard_size="5KB")
    assert len(list((directory / "shards").glob("*.safetensors"))) > 2
    again = weights.load(directory / "shards", LlamaConfig.from_directory(directory / "shards"))
    jax.tree.map(np.testing.assert_array_equal, again, make_params(config))
    # Both libraries prefer a model saved next to shards.
    zeros = jax.tree.map(jnp.zeros_like, again)
    weights.save(directory / "shards", zeros, config)
    jax.tree.map(np.testing.assert_array_equal, weights.load(directory / "shards", config), zeros)
    assert not transformers.LlamaForCausalLM.from_pretrained(directory / "shards").lm_head.weight.any()


def test_each_device_reads_its_slices(config, directory, make_params):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    params = make_params(config)
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    shardings = jax.tree.map(lambda x: spec if x.ndim > 1 else spec.update(spec=jax.sharding.PartitionSpec()), params)
    again = weights.load(directory, config, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert again["layers"]["mlp"]["up_proj"]["kernel"].sharding == spec


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
        (lambda t: t.update({"model.layers.9.x": np.zeros(1, np.float32)}), r"unexpected model\.layers\.9\.x"),
        (lambda t: t.update({"model.norm.weight": np.zeros(3, np.float32)}), r"model\.norm\.weight has shape \(3,\)"),
        (lambda t: t.update({"model.norm.weight": np.zeros(16, np.int8)}), r"model\.norm\.weight is stored as I8"),
    ],
)
def test_wrong_tensor_is_named(config, directory, change, words):
    _edit(directory, change)
    with pytest.raises(ValueError, match=words):
        weights.load(directory, config)


def test_truncated_file_is_named(config, directory):
    file = directory / "model.safetensors"
    content = file.read_bytes()
    for length in (len(content) - 1, 100, 4):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
            weights.load(directory, config)
    file.write_bytes(content[:8] + b"x" + content[9:])
    with pytest.raises(ValueError, match="damaged header"):
        weights.load(directory, config)


def test_missing_file_is_named(config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        weights.load(tmp_path, config)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors does not exist"):
        weights.load(tmp_path, config)


_LOAD = """
import sys
import jax
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig, weights

def memory(name):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

config = LlamaConfig.from_directory(sys.argv[1])
jax.block_until_ready(jax.numpy.zeros(3))  # initialize the runtime, whose memory does not count
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # reset the peak
before = memory("VmRSS")
params = jax.block_until_ready(weights.load(sys.argv[1], config))
size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print(size, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_load_memory_stays_near_model_size(tmp_path):
    """Loads 125 MB, with the proportions of Llama-3.1-8B at a sixteenth of its widths, in a separate process."""
    config = LlamaConfig(
        vocab_size=8016, hidden_size=256, intermediate_size=896, num_attention_heads=32, num_key_value_heads=8
    )
    tensors = {entry.name: np.ones(entry.shape, np.float32) for entry in entries(config)}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    root = pathlib.Path(weights.__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", _LOAD, tmp_path], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    size, peak = map(int, output.split())
    assert size > 100e6
    assert size < peak < 1.3 * size


@pytest.fixture
def tied(config, make_params, tmp_path):
    """Returns the configuration and directory of a model with tied embeddings."""
    config = dataclasses.replace(config, tie_word_embeddings=True)
    weights.save(tmp_path, make_params(config), config)
    return config, tmp_path


def test_tied_head_with_own_values_is_refused(tied):
    config, directory = tied
    _edit(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * np.float32(1.001)}))
    with pytest.raises(UserError, match=r"lm_head\.weight differs .*: set tie_word_embeddings to false") as caught:
        weights.load(directory, config)
    assert "\n" not in str(caught.value)
    # The advised fix gives the parameters that transformers reads from the original file.
    theirs = transformers.LlamaForCausalLM.from_pretrained(directory)
    ours = weights.load(directory, dataclasses.replace(config, tie_word_embeddings=False))
    np.testing.assert_array_equal(ours["lm_head"]["kernel"], theirs.lm_head.weight.detach().numpy().T)
    np.testing.assert_array_equal(ours["embed_tokens"]["embedding"], theirs.model.embed_tokens.weight.detach().numpy())


def test_last_row_of_tied_head_is_compared(tied, monkeypatch):
    config, directory = tied
    monkeypatch.setattr(weights, "_BLOCK", 8)

    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["lm_head.weight"][-1, -1] += 1

    _edit(directory, change)
    with pytest.raises(UserError, match="differs"):
        weights.load(directory, config)


def test_tied_head_of_other_shape_is_refused(tied):
    config, directory = tied
    _edit(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"][:-1].copy()}))
    with pytest.raises(UserError, match="differs"):
        weights.load(directory, config)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tied_head_that_is_a_copy_loads(tied, dtype):
    config, directory = tied
    before = weights.load(directory, config)
    _edit(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].astype(dtype)}))
    jax.tree.map(np.testing.assert_array_equal, weights.load(directory, config), before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"num_hidden_layers": 1},
            r"unexpected model\.layers\.1\..*: num_hidden_layers is 1 in config\.json, raise it",
        ),
        ({"num_hidden_layers": 3}, r"lacks model\.layers\.2\."),
        ({"attention_bias": True}, r"lacks .*_proj\.bias.*: attention_bias is true"),
        ({"mlp_bias": True}, r"lacks .*_proj\.bias.*: mlp_bias is true"),
        ({"vocab_size": 60}, r"model\.embed_tokens\.weight has shape \(61, 16\), config\.json requires \(60, 16\)"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight has shape \(8, 16\), config\.json requires \(16, 16\)"),
        ({"head_dim": 8}, r"q_proj\.weight has shape \(16, 16\), config\.json requires \(32, 16\)"),
    ],
)
def test_contradiction_with_config_is_named(config, directory, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        weights.load(directory, dataclasses.replace(config, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.0.self_attn.q_proj.bias", "attention_bias is false in config.json, set it to true"),
        ("model.layers.1.mlp.down_proj.bias", "mlp_bias is false in config.json, set it to true"),
        ("model.layers.0.self_attn.q_norm.weight", "check that config.json belongs to these weights"),
        ("model.layers.x.weight", "check that config.json belongs to these weights"),
    ],
)
def test_extra_tensor_is_named(config, directory, name, words):
    _edit(directory, lambda t: t.update({name: np.zeros(16, np.float32)}))
    with pytest.raises(UserError, match=f"unexpected {name}: {words}"):
        weights.load(directory, config)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
        {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
    ],
)
def test_damaged_header_is_named(config, tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(UserError, match=r"model\.safetensors has a damaged header"):
        weights.load(tmp_path, config)


@pytest.mark.parametrize("index", [{}, {"weight_map": [1]}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b"}}])
def test_damaged_shard_index_is_named(config, tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index\.json has no 'weight_map'"):
        weights.load(tmp_path, config)
