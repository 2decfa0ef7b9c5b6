"""Cases of attention alone: its gradient and a Hessian product, by method and length.

Shape suffixes as in `mass_jax.llama.attention`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks.accelerator_run import Group, Row, timed
from experiments.benchmarks.accelerator_shapes import Preset
from mass_jax.llama import LlamaConfig, attention, kernel_attention

REPEATS = 5
METHODS = ("kernel", "blockwise", "full")
_DERIVATIVES = ("gradient", "Hessian product")


@dataclasses.dataclass(frozen=True)
class Attention:
    """Shapes of attention to as many texts of one length as the preset's number of tokens holds.

    Attributes:
        config: architecture that sets the numbers of heads and features.
        tokens: tokens of a text.
        rows: number of texts.
    """

    config: LlamaConfig
    tokens: int
    rows: int

    def inputs(self) -> tuple[jax.Array, ...]:
        """Returns random queries, keys, values and a cotangent of the output, in bfloat16."""
        c, texts = self.config, (self.rows, self.tokens)
        query = (*texts, c.num_key_value_heads, c.num_attention_heads // c.num_key_value_heads, c.head_dim)
        key = (*texts, c.num_key_value_heads, c.head_dim)
        keys = jax.random.split(jax.random.key(0), 4)
        shapes = (query, key, key, query)
        return tuple(jax.random.normal(k, shape, jnp.bfloat16) for k, shape in zip(keys, shapes, strict=True))

    def label(self, method: str, derivative: str) -> str:
        """Returns the label of a case."""
        return f"attention to {self.rows} x {self.tokens} tokens: {method}, {derivative}"

    def group(self) -> Group:
        """Returns the group of all methods and derivatives."""
        functions = {
            self.label(method, derivative): functools.partial(_derivative, method, derivative)
            for derivative in _DERIVATIVES
            for method in METHODS
        }
        shapes = jax.eval_shape(self.inputs)
        traces = {label: functools.partial(jax.jit(function).trace, *shapes) for label, function in functions.items()}
        return Group(traces, self._measure)

    def _measure(self, programs: Mapping[str, Any]) -> dict[str, Row]:
        """Times the programs, and compares each method's result with that of blockwise attention."""
        inputs = jax.jit(self.inputs)()
        rows = timed({label: functools.partial(program, *inputs) for label, program in programs.items()}, REPEATS)
        for derivative in _DERIVATIVES:
            base = self.label("blockwise", derivative)
            reference = programs[base] if "seconds" in rows.get(base, {}) else None
            for method in METHODS:
                label = self.label(method, derivative)
                if reference is not None and "seconds" in rows.get(label, {}) and method != "blockwise":
                    rows[label]["cosine"] = float(_cosine(programs[label](*inputs), reference(*inputs)))
        return rows


def groups(preset: Preset) -> list[Group]:
    """Returns one group per length of the preset, most wanted first."""
    return [
        Attention(preset.large, tokens, max(preset.attention_tokens) // tokens).group()
        for tokens in preset.attention_tokens
    ]


def _attend(method: str, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    if method == "kernel":
        return kernel_attention.attend(query, key, value, None)
    if method == "blockwise":
        return attention.blockwise(query, key, value, None, block=LlamaConfig.attention_block)
    positions_T = jnp.arange(query.shape[1])
    return attention.attend(query, key, value, attention.causal(positions_T, positions_T, None))


def _derivative(method: str, derivative: str, query: Any, key: Any, value: Any, bar: Any) -> Any:
    """Returns the gradient of the output's product with `bar`, or that gradient's derivative along its inputs."""

    def gradient(*inputs: jax.Array) -> Any:
        _, pull = jax.vjp(functools.partial(_attend, method), *inputs)
        return pull(bar)

    if derivative == "gradient":
        return gradient(query, key, value)
    return jax.jvp(gradient, (query, key, value), (query, key, value))[1]


@jax.jit
def _cosine(left: Any, right: Any) -> jax.Array:
    left, right = (optax.tree.cast(tree, jnp.float32) for tree in (left, right))
    return optax.tree.vdot(left, right) / (optax.tree.norm(left) * optax.tree.norm(right))
