"""Ceilings of a device, and cases of meta-gradients at the shapes of published models.

Shape suffixes: M examples, B outer rows, T tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import metagrad_cases, metagrad_programs
from experiments.benchmarks.accelerator_run import Group, Row, timed
from experiments.benchmarks.accelerator_shapes import Preset
from mass_jax import metagrad as mg
from mass_jax.llama import LlamaConfig, decode, flops, lora, random_weights
from mass_jax.types import Params
from third_party.peers import problem

REPEATS = 3
_PRODUCTS = 10  # in one program
_GIGA = 1e9
INNER = "inner gradient"


@functools.cache
def weight_shapes(config: LlamaConfig) -> Params:
    """Returns the shapes of the parameters in bfloat16."""
    return jax.eval_shape(functools.partial(random_weights.draw, config, dtype="bfloat16"), jax.random.key(0))


class Models:
    """Random parameters in bfloat16 by model, drawn on the device when they are first needed."""

    def __init__(self) -> None:
        self._params: dict[str, Params] = {}
        self._unstacked: dict[str, Params] = {}

    def params(self, name: str, config: LlamaConfig) -> Params:
        """Returns the parameters as training holds them."""
        if name not in self._params:
            self._params[name] = random_weights.draw(config, jax.random.key(0), "bfloat16")
        return self._params[name]

    def unstacked(self, name: str, config: LlamaConfig) -> Params:
        """Returns the parameters in the layout for decoding, a second copy."""
        if name not in self._unstacked:
            self._unstacked[name] = jax.jit(decode.unstack)(self.params(name, config))
        return self._unstacked[name]


def ceilings(preset: Preset) -> Group:
    """Returns the group that measures a product of matrices and a copy."""
    shape = (preset.product, preset.product)
    copied = (preset.copied_bytes // 2**18, 2**16)  # float32

    def products(x: jax.Array, y: jax.Array) -> jax.Array:
        for _ in range(_PRODUCTS):
            x = x @ y
        return x

    def copy(x: jax.Array) -> jax.Array:
        return x + 1

    def measure(programs: Mapping[str, Any]) -> dict[str, Row]:
        x, y = (jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16) for seed in range(2))
        y = y * jnp.bfloat16(preset.product**-0.5)
        rows = timed({name: functools.partial(programs[name], x, y) for name in programs if name == "product"}, 5)
        if "copy" in programs:
            array = jnp.zeros(copied, jnp.float32)
            rows |= timed({"copy": functools.partial(programs["copy"], array)}, 5)
        if "seconds" in rows.get("product", {}):
            rate = _PRODUCTS * 2 * preset.product**3 / rows["product"]["seconds"] / 1e12
            rows["product"] |= {"tflops": rate} | _share(rate, preset)
        if "seconds" in rows.get("copy", {}):
            rows["copy"]["gigabytes_per_second"] = 2 * preset.copied_bytes / rows["copy"]["seconds"] / _GIGA
        return rows

    matrix = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    traces = {
        "product": functools.partial(jax.jit(products).trace, matrix, matrix),
        "copy": functools.partial(jax.jit(copy).trace, jax.ShapeDtypeStruct(copied, jnp.float32)),
    }
    return Group(traces, measure)


def _share(tflops: float, preset: Preset) -> Row:
    return {"share_of_peak": tflops / preset.peak_tflops} if preset.peak_tflops else {}


@dataclasses.dataclass(frozen=True)
class Bilevel:
    """Shapes of a meta-gradient in the example weights of one task.

    Attributes:
        preset: the shapes.
        model: name of the model in the results.
        config: its architecture.
        examples: examples m.
        models: holds the parameters.
        half_adapters: whether products with the adapter have operands in bfloat16; the adapter is float32.
        attention: as `LlamaConfig.attention`.
    """

    preset: Preset
    model: str
    config: LlamaConfig
    examples: int
    models: Models
    half_adapters: bool = False
    attention: str = "xla"

    @property
    def size(self) -> problem.Size:
        """The shapes as `metagrad_programs` takes them."""
        c, p = self.config, self.preset
        return problem.Size(
            c.num_hidden_layers,
            c.hidden_size,
            c.intermediate_size,
            c.num_attention_heads,
            c.num_key_value_heads,
            c.vocab_size,
            p.rank,
            self.examples,
            p.tokens,
            p.outer_rows,
            c.tie_word_embeddings,
            dataclasses.replace(c, half_adapters=self.half_adapters, attention=self.attention),
        )

    def arrays(self) -> problem.Data:
        """Returns the arrays of the problem without base parameters: an adapter and random tokens."""
        p, keys = self.preset, jax.random.split(jax.random.key(1), 4)
        vocabulary = self.config.vocab_size
        return problem.Data(
            base={},
            params=lora.init(keys[0], self.config, p.rank, dtype=jnp.float32).leaves,
            weights_M=jax.random.uniform(keys[1], (self.examples,), jnp.float32) / self.examples,
            tokens_MT=jax.random.randint(keys[2], (self.examples, p.tokens), 0, vocabulary),
            outer_BT=jax.random.randint(keys[3], (p.outer_rows, p.tokens), 0, vocabulary),
        )

    def shapes(self) -> problem.Data:
        """Returns the arrays' shapes."""
        return dataclasses.replace(jax.eval_shape(self.arrays), base=weight_shapes(self.config))

    def label(self, name: str) -> str:
        """Returns the label of a case."""
        few = "" if self.examples == self.preset.examples else f", m={self.examples}"
        half = ", adapter products in bfloat16" if self.half_adapters else ""
        attention = f", {self.attention} attention" if self.attention != "xla" else ""
        return f"{self.model}: {name}{few}{half}{attention}"

    def inner_gradient(self, remat: str, chunk: int | None, data: problem.Data) -> Any:
        """Computes one inner step: the gradient with respect to the adapter, and the update of SGD."""
        losses_of = problem.example_losses(self.size, data.base, remat, self.preset.loss_chunk)
        loss = mg.WeightedLoss(losses_of, chunk=chunk)
        optimizer = mg.parse_optimizer("sgd", metagrad_cases.RATES["sgd"])
        adapted = mg.adapt(loss, data.params, data.weights_M, data.tokens_MT, optimizer=optimizer, num_steps=1)
        return adapted.params

    def group(self, functions: Mapping[str, Callable[[problem.Data], Any]], **settings: Any) -> Group:
        """Returns a group of functions of the problem's arrays, with rates of inner gradients and ratios."""
        named = {self.label(name): function for name, function in functions.items()}
        traces = {label: functools.partial(self._trace, function) for label, function in named.items()}
        return Group(traces, self._measure, **settings)

    def _trace(self, function: Callable[[problem.Data], Any]) -> Any:
        return jax.jit(function).trace(self.shapes())

    def _measure(self, programs: Mapping[str, Any]) -> dict[str, Row]:
        data = dataclasses.replace(jax.jit(self.arrays)(), base=self.models.params(self.model, self.config))
        calls = {label: functools.partial(program, data) for label, program in programs.items()}
        rows = timed(calls, REPEATS, self.preset.profiled(programs))
        operations = 4.0 * flops.matmul_weights(self.config) * self.examples * self.preset.tokens
        first = next((row.get("seconds") for label, row in rows.items() if "first order" in label), None)
        for label, row in rows.items():
            if "seconds" in row and INNER in label:
                rate = operations / row["seconds"] / 1e12
                row |= {"tflops": rate} | _share(rate, self.preset)
            elif "seconds" in row and first:
                row["ratio_to_first_order"] = row["seconds"] / first
        return rows

    def case(self, adjoint: str, remat: str = "block", chunks: bool = True) -> Callable[[problem.Data], Any]:
        """Returns the meta-gradient by an adjoint of `metagrad_cases`, in chunks of examples or all at once."""
        chunk = min(self.preset.chunk, self.examples) if chunks else None
        product = max(chunk // 2, 1) if chunk and "Weighted" in adjoint else None
        case = metagrad_cases.Case(adjoint, "sgd", remat, self.preset.loss_chunk if chunks else 0, chunk, product)
        return metagrad_programs.function_of(case, self.size)

    def inner(self, remat: str, chunks: bool = True) -> Callable[[problem.Data], Any]:
        """Returns the inner gradient under a rematerialization."""
        return functools.partial(self.inner_gradient, remat, self.preset.chunk if chunks else None)


def long(
    preset: Preset,
    *,
    arithmetic: str,
    adjoint: str,
    remat: str,
    chunk: int | None,
    attention: str = "xla",
    unroll: int = 1,
) -> Group:
    """Returns the group of a meta-gradient in all parameters with Adam.

    Args:
        preset: the shapes.
        arithmetic: "float32"; "bfloat16 products", which round operands; or "bfloat16" activations.
        adjoint: the adjoint method.
        remat: rematerialization of blocks.
        chunk: examples per chunk of gradients; None means all.
        attention: as `LlamaConfig.attention`.
        unroll: blocks per iteration of the scan over them.
    """
    size = preset.long
    settings: dict[str, Any] = {
        "half_products": arithmetic == "bfloat16 products",
        "attention": attention,
        "unroll": unroll,
    }
    if arithmetic == "bfloat16":
        settings["dtype"] = arithmetic
    size = dataclasses.replace(size, architecture=dataclasses.replace(size.config(), **settings))
    label = f"GPT-2 shape: {adjoint}, {remat} remat, {chunk or size.examples} at a time, {arithmetic}"
    label += f", {attention} attention" if attention != "xla" else ""
    label += f", {unroll} blocks per iteration" if unroll > 1 else ""
    case = metagrad_cases.Case(adjoint, "adam", remat, 32, chunk, None, preset.long_steps)
    draw = functools.partial(problem.draw, size=size)
    function = metagrad_programs.function_of(case, size)

    def measure(programs: Mapping[str, Any]) -> dict[str, Row]:
        data = jax.jit(draw)(jax.random.key(0))
        calls = {name: functools.partial(program, data) for name, program in programs.items()}
        return timed(calls, REPEATS, preset.profiled(programs))

    return Group({label: lambda: jax.jit(function).trace(jax.eval_shape(draw, jax.random.key(0)))}, measure)
