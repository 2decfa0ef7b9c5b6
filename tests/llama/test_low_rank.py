"""Product with B: equal to the plain product in every mode of differentiation and under vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.llama.low_rank import times_b


def plain(hidden, b):
    return hidden @ b


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), float) for shape in shapes]


def scalar(product):
    return lambda hidden, b: jnp.sum(jnp.sin(product(hidden, b)) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def everything(product, hidden, b, tangents):
    """Returns the value, the gradient, forward over reverse, and reverse over reverse."""
    loss = scalar(product)
    gradient = jax.grad(loss, argnums=(0, 1))

    def along(hidden, b):
        return sum(jnp.vdot(g, t) for g, t in zip(gradient(hidden, b), tangents, strict=True))

    return (
        product(hidden, b),
        gradient(hidden, b),
        jax.jvp(gradient, (hidden, b), tuple(tangents))[1],
        jax.grad(along, argnums=(0, 1))(hidden, b),
    )


def assert_same(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize(("lead", "each"), [((), ()), ((5,), ()), ((2, 5), ()), ((2, 5), (2,))])
def test_times_b_matches_plain_product(x64, lead, each):
    hidden, b, *tangents = draw(*[(*lead, 3), (*each, 3, 7)] * 2)
    assert_same(everything(times_b, hidden, b, tangents), everything(plain, hidden, b, tangents))


@pytest.mark.parametrize("dims", [(0, 0), (0, 1), (1, 0), (0, None), (1, None), (None, 0), (None, 1)])
def test_times_b_supports_vmap(x64, dims):
    shapes = [[5, 3], [3, 7]]
    for shape, dim in zip(shapes, dims, strict=True):
        if dim is not None:
            shape.insert(dim, 4)
    hidden, b = draw(*map(tuple, shapes))
    both = [jax.vmap(lambda h, b, p=p: (p(h, b), jax.grad(scalar(p), (0, 1))(h, b)), dims) for p in (times_b, plain)]
    assert_same(*jax.jit(lambda hidden, b: [function(hidden, b) for function in both])(hidden, b))


def test_times_b_supports_nested_vmap(x64):
    hidden, b = draw((2, 4, 5, 3), (2, 3, 7))
    nested = [jax.vmap(jax.vmap(p, (0, None))) for p in (times_b, plain)]
    assert_same(*(function(hidden, b) for function in nested))


@pytest.mark.parametrize("tasks", [False, True])
def test_gradient_of_b_puts_narrow_operand_left(tasks):
    gradient = jax.grad(scalar(times_b), argnums=1)
    hidden, b = draw((5, 2), (2, 7))
    if tasks:
        gradient, hidden, b = jax.vmap(gradient), hidden[None], b[None]
    dots = [e for e in jax.make_jaxpr(gradient)(hidden, b).eqns if e.outvars[0].aval.shape == b.shape]
    assert [e.primitive.name for e in dots[-1:]] == ["dot_general"]
    assert dots[-1].invars[0].aval.shape == hidden.shape


def test_gradient_works_inside_shard_map():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    hidden, b = draw((4, 3), (3, 7))
    rows, whole = jax.sharding.PartitionSpec("d"), jax.sharding.PartitionSpec()

    def summed(hidden, b):
        return jax.grad(scalar(times_b), argnums=1)(hidden, b)

    found = jax.jit(jax.shard_map(summed, mesh=mesh, in_specs=(rows, whole), out_specs=whole))(hidden, b)
    np.testing.assert_allclose(found, jax.grad(scalar(plain), argnums=1)(hidden, b), rtol=1e-5)


@pytest.mark.parametrize("b", [np.ones((4, 7), np.float32), np.ones((3, 7), np.float16)])
def test_mismatched_operands_are_refused(b):
    with pytest.raises(TypeError, match="rank, leading axes or dtype differ"):
        jax.jit(times_b)(np.ones((2, 3), np.float32), b)
