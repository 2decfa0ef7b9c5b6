"""Utilities for pytrees in which only some leaves are differentiable."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

PyTree: TypeAlias = Any


def is_differentiable(leaf: Any) -> bool:
    """Returns True for real or complex floating-point leaves; integers, booleans, and PRNG keys have no cotangent."""
    return bool(jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.inexact))


def split(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into (differentiable leaves, other leaves), with None in place of each missing leaf."""
    differentiable = jax.tree.map(lambda leaf: leaf if is_differentiable(leaf) else None, tree)
    others = jax.tree.map(lambda leaf: None if is_differentiable(leaf) else leaf, tree)
    return differentiable, others


def merge(differentiable: PyTree, others: PyTree) -> PyTree:
    """Inverts `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, differentiable, others, is_leaf=lambda x: x is None)


def add(left: PyTree, right: PyTree) -> PyTree:
    """Adds two trees of the same structure; `optax.tree.add` starts from 0, which is one more operation per leaf."""
    return jax.tree.map(jnp.add, left, right)


def take(tree: PyTree, index: Any) -> PyTree:
    """Returns `leaf[index]` of every leaf; unlike a range slice, it never copies the whole stack."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


def fill_integers(differentiable: PyTree, like: PyTree) -> PyTree:
    """Completes a split cotangent to the structure of `like` with zeros for leaves without derivative."""
    zeros = jax.tree.map(lambda leaf: None if is_differentiable(leaf) else jnp.zeros_like(leaf), like)
    return merge(differentiable, zeros)
