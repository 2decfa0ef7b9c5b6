"""Tests of mixed_grad against jax.grad under other transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError


def plain(loss, argnums=0, has_aux=False):
    return jax.grad(loss, argnums, has_aux=has_aux)


def close(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-11, atol=1e-13)


@pytest.fixture
def problem(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"w": jax.random.normal(keys[0], (3, 3)), "partly": jnp.arange(3.0), "unused": jnp.ones(2)}
    batch = {"x": jax.random.normal(keys[1], (4, 3)), "y": jax.random.normal(keys[2], (4, 3)), "i": jnp.arange(4)[::-1]}
    return params, batch, jnp.array(0.7)


def unrolled(gradient, wrap=lambda step: step):
    """Builds three steps with a loss that reuses a matrix, has integers and aux, and closes over a tracer."""

    def loss(params, batch, scale):
        hidden = jnp.tanh(batch["x"] @ params["w"] * scale)
        error = hidden @ params["w"].T - batch["y"][batch["i"]]
        return jnp.mean(error**2) + params["partly"][0] ** 3, {"hidden": hidden, "i": batch["i"]}

    def run(params, floats, captured, integers):
        def step(params, _):
            batch = {**floats, "i": integers}
            grads, aux = gradient(lambda p, b: loss(p, b, captured * 2.0), 0, True)(params, batch)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), jnp.sum(aux["hidden"])

        params, sums = jax.lax.scan(wrap(step), params, None, length=3)
        return loss(params, {**floats, "i": integers}, captured)[0] + jnp.sum(sums)

    return run


def arguments(problem):
    params, batch, scale = problem
    return params, {"x": batch["x"], "y": batch["y"]}, scale, batch["i"]


def derivative(gradient, wrap):
    return jax.grad(unrolled(gradient, wrap), argnums=(0, 1, 2))


@pytest.mark.parametrize("wrap", [lambda step: step, jax.checkpoint], ids=["plain", "checkpoint"])
def test_mixed_grad_equals_grad_under_jit_and_vmap(wrap, problem, fast):
    args = arguments(problem)
    reference = fast(derivative(plain, wrap))(*args)
    close(fast(derivative(mg.mixed_grad, wrap))(*args), reference)
    many = (*args[:2], jnp.array([0.5, 0.7]), args[3])
    batched = jax.vmap(derivative(mg.mixed_grad, wrap), (None, None, 0, None))
    close(jax.tree.map(lambda leaf: leaf[1], fast(batched)(*many)), reference)


def test_mixed_grad_in_vmap_with_captured_integers(x64):
    rows = jnp.array([[0, 1], [2, 3]])

    def total(gradient):
        def one(w, row):
            return jnp.sum(gradient(lambda w: jnp.sum(jnp.sin(w[row] * w[0])))(w) ** 2)

        return lambda w: jnp.sum(jax.vmap(lambda row: one(w, row))(rows))

    w = jnp.arange(4.0) + 0.3
    close(*jax.jit(lambda w: [jax.grad(total(gradient))(w) for gradient in (mg.mixed_grad, plain)])(w))


def test_mixed_value_and_grad_with_static_arguments(x64):
    def loss(x, power, y, mode="exp"):
        return jnp.sum(x**power * getattr(jnp, mode)(y * x))

    def of(value_and_grad):
        def run(x, y):
            value, (dx, dy) = value_and_grad(loss, (0, 2))(x, 3, y, mode="exp")
            return value**2 + jnp.sum(dx * dy)

        return jax.grad(run, argnums=(0, 1))(jnp.array(1.2), jnp.array(0.3))

    close(of(mg.mixed_value_and_grad), of(jax.value_and_grad))


def test_mixed_grad_uses_forward_over_reverse():
    # lgamma' = digamma, digamma' = polygamma; reverse over reverse would need the backward pass transposed.
    def outer(x):
        return jnp.sum(mg.mixed_grad(lambda x: jnp.sum(jax.lax.lgamma(x)))(x) ** 2)

    text = str(jax.make_jaxpr(jax.grad(outer))(jnp.ones(3, jnp.float32)))
    assert text.count("polygamma") == 1


def test_mixed_grad_constants_need_no_memory(fast):
    # The cotangent of a big closed-over matrix would be as big as the matrix.
    big = jnp.ones((600, 600), jnp.float32)

    def outer(x, big):
        return jnp.sum(mg.mixed_grad(lambda x: jnp.sum(jnp.tanh(big @ x)))(x))

    shapes = jax.ShapeDtypeStruct((600,), jnp.float32), jax.ShapeDtypeStruct(big.shape, jnp.float32)
    stats = fast(jax.grad(outer)).lower(*shapes).compile().memory_analysis()
    assert stats.temp_size_in_bytes < big.nbytes / 4


def cubed(x):
    return jnp.sum(jnp.sin(x) ** 3)


def squared_gradient(gradient):
    return lambda x: jnp.sum(gradient(cubed)(x) ** 2)


def test_mixed_grad_third_derivative_is_exact(x64):
    def third(gradient):
        return jax.grad(lambda x: jnp.sum(jax.grad(squared_gradient(gradient))(x) ** 2))(jnp.arange(1.0, 4.0))

    close(third(mg.mixed_grad), third(jax.grad))


@pytest.mark.parametrize(
    "forward",
    [
        lambda f, x: jax.jvp(f, (x,), (x,)),
        lambda f, x: jax.jit(lambda x: jax.jvp(jax.jit(f), (x,), (x,)))(x),
        lambda f, x: jax.jacfwd(f)(x),
        lambda f, x: jax.hessian(f)(x),
        lambda f, x: jax.linearize(f, x)[1](x),
        lambda f, x: jax.grad(lambda x: jax.jvp(f, (x,), (x,))[1])(x),
        lambda f, x: jax.jvp(lambda x: jax.lax.scan(lambda c, _: (c + f(c), None), x, None, length=2)[0], (x,), (x,)),
        lambda f, x: jax.grad(lambda x: jnp.sum(mg.mixed_grad(f)(x)))(x),
    ],
    ids=["jvp", "jit", "jacfwd", "hessian", "linearize", "grad of jvp", "scan", "mixed_grad"],
)
def test_mixed_grad_rejects_forward_mode(forward):
    with pytest.raises((UserError, TypeError), match=r"mixed_grad has no forward-mode derivative.*use jax.grad"):
        forward(squared_gradient(mg.mixed_grad), jnp.ones(2))


@pytest.mark.parametrize(
    ("argnums", "message"),
    [
        ((0, 0), "repeats a position"),
        ((1, -1), "names one of 2 arguments twice"),
        ((2,), "argnums=2 is out of range"),
        (-3, "argnums=-3 is out of range"),
        ((), "selects no argument"),
        (0.0, "must be an int or a tuple"),
    ],
)
def test_mixed_grad_rejects_invalid_argnums(argnums, message):
    with pytest.raises(UserError, match=message) as caught:
        mg.mixed_grad(lambda x, y: jnp.sum(x * y), argnums)(jnp.ones(2), jnp.ones(2))
    assert isinstance(caught.value, TypeError)


def test_mixed_grad_accepts_negative_numpy_list_argnums():
    def loss(x, y):
        return jnp.sum(x * y**2)

    args = jnp.ones(2), 3 * jnp.ones(2)
    for argnums in (-1, np.int64(1), [0, 1], (-2, 1)):
        found, expected = mg.mixed_grad(loss, argnums)(*args), jax.grad(loss, argnums)(*args)
        assert type(found) is type(expected)
        close(found, expected)
