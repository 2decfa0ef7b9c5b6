"""Tests of explain_forward_mode, comparisons, gradient norms, and compiled reports."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg


@jax.custom_vjp
def fused(x):
    return x * x


fused.defvjp(lambda x: (fused(x), x), lambda x, bar: (2 * x * bar,))

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


def called_back(x):
    return jax.pure_callback(np.sin, SCALAR, x)


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.checkpoint, lambda f: lambda x: jax.lax.fori_loop(0, 2, lambda _, y: f(y), x)]
)
def test_explain_finds_nested_custom_vjp(wrap):
    (blocker,) = mg.explain_forward_mode(lambda x: jnp.sin(wrap(lambda y: fused(y) + y)(x)), SCALAR)
    assert (blocker.primitive, blocker.function) == ("custom_vjp_call", "fused")
    assert "jax.custom_jvp" in str(blocker)


def test_explain_names_error_without_message():
    @jax.custom_jvp
    def silent(x):
        return jnp.sin(x)

    @silent.defjvp
    def rule(primals, tangents):
        raise NotImplementedError

    (blocker,) = mg.explain_forward_mode(silent, SCALAR)
    assert "NotImplementedError" in str(blocker)


def test_explain_finds_callback_only():
    (blocker,) = mg.explain_forward_mode(called_back, SCALAR)
    assert blocker.primitive == "pure_callback"
    fine = lambda x: jax.nn.relu(jax.checkpoint(jnp.tanh)(x)) + jax.nn.logsumexp(jnp.stack([x, x]))  # noqa: E731
    assert mg.explain_forward_mode(jax.jit(fine), SCALAR) == []


@jax.custom_jvp
def ruled(x):
    return x * x


ruled.defjvp(lambda primals, tangents: (ruled(*primals), 2 * fused(primals[0]) * tangents[0]))


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (ruled, "custom_vjp"),  # its JVP works, that of its gradient does not
        (
            lambda x: jax.lax.while_loop(lambda y: y < 9, lambda y: y * y, x),
            "Reverse-mode differentiation does not work",
        ),
    ],
)
def test_explain_finds_blockers_of_derivative(loss, reason):
    (blocker,) = mg.explain_forward_mode(loss, SCALAR)
    assert reason in str(blocker)
    with pytest.raises((TypeError, ValueError), match=reason):
        jax.jvp(jax.grad(loss), (jnp.float32(2.0),), (jnp.float32(1.0),))


def test_explain_checks_forward_mode_of_nonscalars():
    assert mg.explain_forward_mode(lambda n, x: jax.lax.fori_loop(0, n, lambda _, y: 2 * y, x), 3, jnp.ones(2)) == []


def test_custom_vjp_rejects_jvp():
    with pytest.raises(TypeError):
        jax.jvp(fused, (jnp.float32(2.0),), (jnp.float32(1.0),))


def test_agreement_measures_cosine_norm_and_rank():
    reference = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    same = mg.agreement(jax.tree.map(lambda leaf: -2 * leaf, reference), reference)
    np.testing.assert_allclose(same, (-1.0, 2.0, -1.0), rtol=1e-6)
    with pytest.raises(ValueError, match="estimate must have the structure and shapes of reference"):
        mg.agreement({"a": jnp.ones(2)}, reference)
    order = mg.agreement({"a": jnp.array([1.0, 10.0]), "b": jnp.array([1000.0])}, reference)
    assert float(order.rank_correlation) == pytest.approx(1.0)
    assert float(order.cosine) < 0.95


def test_compare_adjoints_separates_exact_and_biased(toy):
    found = mg.compare_adjoints(
        mg.WeightedLoss(toy.examples), toy.outer, toy.lora, toy.weights, toy.batch, toy.outer_batch,
        estimates={"weighted": mg.WeightedMixedMode(), "truncated": mg.Truncated(1)},
        optimizer=optax.sgd(0.3), num_steps=2,
    )  # fmt: skip
    np.testing.assert_allclose(found["weighted"], 1.0, rtol=1e-10)
    assert abs(float(found["truncated"].norm_ratio) - 1) > 1e-2


def test_precision_report_detects_bfloat16_loss():
    def gradient(x):
        return jax.grad(lambda x: jnp.sum((x + 256) ** 2 - 512 * x))(x)

    x = jnp.linspace(0.1, 0.4, 8)
    assert float(mg.precision_report(jax.grad(lambda x: jnp.sum(x**2)), x).cosine) > 0.999
    # bfloat16 has 8 significant bits, so x is lost beside 256.
    assert not float(mg.precision_report(gradient, x).cosine) > 0.9


def test_example_gradient_norms_match_single_gradients(toy):
    batch = {**toy.batch, "real": jnp.array([1, 0, 1, 1])}
    norms = mg.example_gradient_norms(toy.examples, toy.lora, batch, chunk=2)
    rows = jax.jacrev(toy.examples)(toy.lora, batch)
    expected = [optax.tree.norm(jax.tree.map(lambda leaf, i=i: leaf[i], rows)) for i in range(4)]
    np.testing.assert_allclose(norms, expected, rtol=1e-12)
    assert norms[1] == 0


def test_weighted_loss_rejects_mismatched_weights_and_chunks():
    with pytest.raises(ValueError, match=r"shape \(3,\).*returned \(2,\)"):
        mg.WeightedLoss(lambda p, b: b * p)(jnp.float32(1.0), jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match="chunk=2 does not divide"):
        mg.WeightedLoss(lambda p, b: b * p, chunk=2)(jnp.float32(1.0), jnp.ones(3), jnp.ones(3))


def test_compiled_report_of_this_device():
    report = mg.compiled_report(lambda x: (x @ x) @ x, jax.ShapeDtypeStruct((64, 64), jnp.float32))
    assert (report.argument_bytes, report.output_bytes) == (64 * 64 * 4,) * 2
    assert report.temp_bytes >= 64 * 64 * 4
    assert report.total_bytes == report.argument_bytes + report.output_bytes - report.alias_bytes + report.temp_bytes
    assert "the program was not run" in str(report)


def test_compiled_report_without_libtpu_names_package():
    if importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is installed")
    with pytest.raises(RuntimeError, match="pip install libtpu"):
        mg.compiled_report(lambda x: x, jnp.ones(2), topology="v5e:4x4")


def test_compiled_report_for_tpu_topology():
    pytest.importorskip("libtpu")
    report = mg.compiled_report(lambda x: x @ x, jnp.ones((256, 256), jnp.float32), topology="v5e:4x4")
    assert report.argument_bytes == 256 * 256 * 4
    assert "v5e" in report.device
