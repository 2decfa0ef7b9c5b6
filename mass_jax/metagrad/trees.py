"""Pytrees whose leaves are partly differentiable: split by dtype, merge, add, index."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def is_differentiable(leaf: Any) -> bool:
    """True for real or complex floating leaves; integers, booleans and PRNG keys carry no cotangent."""
    return bool(jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.inexact))


def split(tree: Tree) -> tuple[Tree, Tree]:
    """Splits a tree into (differentiable leaves, the others); None stands where the other half has the leaf."""
    differentiable = jax.tree.map(lambda leaf: leaf if is_differentiable(leaf) else None, tree)
    others = jax.tree.map(lambda leaf: None if is_differentiable(leaf) else leaf, tree)
    return differentiable, others


def merge(differentiable: Tree, others: Tree) -> Tree:
    """Undoes `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, differentiable, others, is_leaf=lambda x: x is None)


def add(left: Tree, right: Tree) -> Tree:
    """Adds two trees of one structure."""
    return jax.tree.map(jnp.add, left, right)


def take(tree: Tree, index: Any) -> Tree:
    """The slice `leaf[index]` of every leaf; unlike a slice of a range it never copies the whole stack."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


def fill_integers(differentiable: Tree, like: Tree) -> Tree:
    """Completes a split cotangent to the structure of `like`: leaves that cannot be differentiated get zeros."""
    zeros = jax.tree.map(lambda leaf: None if is_differentiable(leaf) else jnp.zeros_like(leaf), like)
    return merge(differentiable, zeros)
