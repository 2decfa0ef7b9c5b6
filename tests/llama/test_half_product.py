"""Products with bfloat16 operands: parity with rounded operands in all modes of differentiation and under vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama.half_product import half_product, is_unbatched


def rounded(array):
    """Rounds to bfloat16, with a derivative of 1."""
    return array + jax.lax.stop_gradient(array.astype(jnp.bfloat16).astype(array.dtype) - array)


def plain(x, w, transposed=False):
    return rounded(x) @ rounded(w.T if transposed else w)


@pytest.fixture
def operands():
    """Small integers, so that products and sums are exact in float32 and only the operands are rounded."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.integers(-9, 9, shape), jnp.float32) for shape in ((2, 5, 4), (4, 3))]


@pytest.mark.parametrize("transposed", [False, True])
def test_half_product_equals_product_of_rounded_operands(transposed):
    x, w = (jax.random.normal(jax.random.key(seed), shape) for seed, shape in ((0, (2, 5, 4)), (1, (4, 3))))
    found = half_product(x, w.T if transposed else w, transposed)
    np.testing.assert_allclose(found, plain(x, w), rtol=1e-6, atol=1e-6)
    assert not np.allclose(found, x @ w, rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_half_product_differentiates_in_every_mode(operands, transposed):
    x, w = operands
    w = w.T if transposed else w

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(product):
        def loss(x, w):
            return (product(x, w, transposed) ** 2).sum()

        grad = jax.grad(loss, argnums=(0, 1))
        return (
            jax.jvp(loss, (x, w), (x, w)),
            grad(x, w),
            jax.jvp(grad, (x, w), (x, w)),
            jax.grad(lambda x, w: squared(grad(x, w)), argnums=(0, 1))(x, w),
            jax.linearize(loss, x, w)[1](x, w),
        )

    def squared(tree):
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)) / 1024

    # Cotangents and tangents are rounded in half_product only, by up to 2^-9 of their size.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-2 * float(jnp.abs(b).max())),
        derivatives(half_product),
        derivatives(plain),
    )


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 1), (2, None), (None, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_half_product_under_vmap(axes, transposed):
    rng = np.random.default_rng(0)
    shapes = [(5, 4), (3, 4) if transposed else (4, 3)]
    for shape, axis in zip(range(2), axes, strict=True):
        if axis is not None:
            shapes[shape] = (*shapes[shape][:axis], 6, *shapes[shape][axis:])
    x, w = (rng.integers(-9, 9, shape).astype(np.float32) for shape in shapes)

    def product_and_gradients(x, w):
        product, pull = jax.vjp(lambda x, w: half_product(x, w, transposed), x, w)
        return product, pull(jnp.ones((5, 3)))

    found, one = jax.jit(jax.vmap(product_and_gradients, axes))(x, w), jax.jit(product_and_gradients)
    for index in range(6):
        one_x = x if axes[0] is None else np.take(x, index, axes[0])
        one_w = w if axes[1] is None else np.take(w, index, axes[1])
        wanted = one(one_x, one_w)
        jax.tree.map(lambda a, b, index=index: np.testing.assert_array_equal(a[index], b), found, wanted)


def test_half_product_shares_leading_axes():
    x, w = jnp.arange(48.0).reshape(2, 2, 3, 4), jnp.arange(40.0).reshape(2, 4, 5)
    np.testing.assert_array_equal(half_product(x, w), jnp.stack([half_product(x[i], w[i]) for i in range(2)]))
    with pytest.raises(TypeError, match="leading axes"):
        half_product(x[0, :1], w)


def test_half_product_keeps_dtypes_of_operands():
    x, w = jnp.ones((2, 4)), jnp.ones((4, 3), jnp.bfloat16)
    assert half_product(x, w).dtype == jnp.float32
    dx, dw = jax.grad(lambda x, w: half_product(x, w).sum(), argnums=(0, 1))(x, w)
    assert (dx.dtype, dw.dtype) == (jnp.float32, jnp.bfloat16)


def test_half_product_rejects_shapes():
    with pytest.raises(TypeError, match="do not match"):
        jax.eval_shape(half_product, jnp.ones((2, 4)), jnp.ones((3, 4)))


def test_checkpoint_policy_saves_unbatched_products():
    def products(axes):
        def loss(x, w):
            return jnp.sin(half_product(jnp.sin(x), w)).sum()

        body = jax.checkpoint(loss, policy=is_unbatched)
        xs, ws = jnp.ones((6, 5, 4)), jnp.ones((6, 4, 3)) if axes[1] == 0 else jnp.ones((4, 3))
        return str(jax.make_jaxpr(jax.grad(lambda x: jax.vmap(body, axes)(x, ws).sum()))(xs)).count("half_product")

    assert products((0, None)) == 2  # one forward and one backward
    assert products((0, 0)) == 3  # the forward product is computed again


def test_half_product_derivatives_have_operand_dtype():
    x, w = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 3))

    def loss(x, w):
        product = half_product(x, w, dtype=jnp.bfloat16)
        assert product.dtype == jnp.bfloat16
        return (product.astype(jnp.float32) ** 2).sum()

    grad = jax.grad(loss, (0, 1))
    text = str(jax.make_jaxpr(lambda x, w: jax.jvp(grad, (x, w), (x, w)))(x, w))
    dots = [line for line in text.splitlines() if "half_product[" in line]
    assert len(dots) == 9  # a product and two gradients, each with two tangents
    found = jax.jvp(grad, (x, w), (x, w))
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [jnp.bfloat16, jnp.float32] * 2
    np.testing.assert_array_equal(found[0][0].astype(jnp.float32), jnp.full((2, 4), 24.0))


def test_split_half_product_is_nearly_exact():
    keys = jax.random.split(jax.random.key(0), 3)
    x, a, b = (jax.random.normal(key, shape) for key, shape in zip(keys, ((3, 5, 8), (8, 2), (2, 6)), strict=True))
    x = x.astype(jnp.bfloat16)

    def exact(x, w):
        return jnp.matmul(x.astype(jnp.float32), w)

    def gradients(product):
        return jax.jit(jax.grad(lambda x, a, b: jnp.sin(product(product(x, a), b)).sum(), (1, 2)))(x, a, b)

    def error(**settings):
        pairs = zip(gradients(lambda x, w: half_product(x, w, **settings)), gradients(exact), strict=True)
        return max(float(jnp.linalg.norm(one - other) / jnp.linalg.norm(other)) for one, other in pairs)

    assert error(split=True) < 2e-5 < 1e-3 < error()
