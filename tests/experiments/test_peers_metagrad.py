"""Tests of experiments.benchmarks.peers_metagrad: agreement with plain JAX, checks of the flags, and the report."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import peers_metagrad
from tests.commands import in_process
from third_party.peers import mlp

SHAPE = mlp.Shape(3, 4, 2, 6)
ADAM = mlp.Inner(0.01, adam=True, eps_root=1e-6)


@pytest.fixture(scope="module")
def exact():
    """Data, and its meta-gradients by plain JAX for SGD and Adam."""
    data = mlp.draw(0, SHAPE)
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, data)
        return data, {
            inner: np.asarray(jax.jit(mlp.plain_jax, static_argnums=(1, 2))(arrays, inner, 2))
            for inner in (mlp.Inner(0.1), ADAM)
        }


@pytest.mark.usefixtures("x64")
def test_mixed_mode_agrees_with_plain_jax(exact):
    data, gradients = exact
    for inner, gradient in gradients.items():
        compute = jax.jit(peers_metagrad.JAX_PEERS["WeightedMixedMode"], static_argnames=("inner", "num_steps"))
        found = compute(jax.tree.map(jnp.asarray, data), inner=inner, num_steps=2)
        np.testing.assert_allclose(found, gradient, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # bergson writes checkpoints with it
@pytest.mark.parametrize("peer", peers_metagrad.TORCH_PEERS)
def test_library_agrees_with_plain_jax(exact, peer):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    mlp_torch = pytest.importorskip("third_party.peers.mlp_torch")
    data, gradients = exact
    for inner, gradient in gradients.items():
        if peer != "higher" or not inner.eps_root:
            np.testing.assert_allclose(mlp_torch.PEERS[peer](data, inner, 2), gradient, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_metasmoothness_agrees_with_bergson():
    if importlib.util.find_spec("bergson") is None:
        pytest.skip("bergson is not installed")
    rows = peers_metagrad.smoothness(SHAPE, [4])
    assert [row["optimizer"] for row in rows] == list(peers_metagrad.OPTIMIZERS)
    assert min(row["bergson"] for row in rows) < 0.999  # not all of them are trivial
    for row in rows:
        np.testing.assert_allclose(row["mass_jax"], row["bergson"], rtol=1e-8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--out is missing"),
        (["--out=x", "--steps=two"], "--steps=two must be numbers"),
        (["--out=x", "--steps=0"], "--steps=0 must be numbers of at least 1"),
    ],
)
def test_bad_flags_are_reported_in_one_line(given, message):
    done = in_process("benchmarks.peers_metagrad", *given)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_report_shows_times_and_peaks(tmp_path):
    row = {"peer": "plain JAX", "optimizer": "sgd", "steps": 4, "difference": 0.0, "seconds": [0.001, 0.003, 0.002]}
    rows = [row | {"peak_bytes": 2**21}, row | {"optimizer": "adam"}]
    result = {"machine": "a machine", "versions": {"jax": "0"}, "shape": {"inputs": 1, "hidden": 2, "outputs": 3}}
    result["shape"]["examples"] = 4
    smooth = [{"optimizer": "sgd", "steps": 4, "mass_jax": 0.5, "bergson": 0.25}]
    peers_metagrad.write(result | {"rows": rows, "smoothness": smooth}, tmp_path)
    text = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "| sgd | 4 | plain JAX | 0e+00 | 2.0 | 1.0 to 3.0 | 2.0 |" in text
    assert "| sgd | 4 | 0.5000 | 0.2500 | 2e-01 |" in text
    assert "| adam | 4 | plain JAX | 0e+00 | 2.0 | 1.0 to 3.0 |  |" in text
    assert json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["rows"] == rows
