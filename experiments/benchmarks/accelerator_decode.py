"""Cases of decoding: tokens per second, and the share of the limit that the memory bandwidth sets.

Shape suffixes: N prompts, P prompt slots.
"""

import dataclasses
import functools
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.benchmarks.accelerator_cases import REPEATS, Models, weight_shapes
from experiments.benchmarks.accelerator_run import Group, Row, profile_of, timed
from experiments.benchmarks.accelerator_shapes import Preset
from experiments.benchmarks.speed import bytes_per_token
from mass_jax import sampling
from mass_jax.llama import Llama, LlamaConfig, decode, lora
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.loop import DecodeState, Request, advance, start
from mass_jax.types import Adapter, Params

_TRACING = threading.Lock()
_PROFILED_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Shapes of one decoding case: `tasks` prompts with the preset's number of samples each.

    Attributes:
        preset: the shapes.
        model: name of the model in the results.
        config: its architecture.
        tasks: number of prompts.
        kind: "own" for an adapter per task, "shared" for one that serves all, or "none".
        models: holds the parameters.
        bandwidth: returns the measured bandwidth in bytes per second; None if there is none.
        note: ends the label.
    """

    preset: Preset
    model: str
    config: LlamaConfig
    tasks: int
    kind: Literal["own", "shared", "none"]
    models: Models
    bandwidth: Callable[[], float | None]
    note: str = ""

    @property
    def label(self) -> str:
        """The label of the case."""
        adapters = {"own": "an adapter per task", "shared": "one adapter", "none": "no adapter"}[self.kind]
        return f"{self.model}: {self.tasks * self.preset.samples} samples, {adapters}{self.note}"

    @property
    def request(self) -> Request:
        """Sampling at temperature 1 without an end."""
        return Request(self.preset.samples, self.preset.new_tokens, Settings(), (), 0)

    def adapters(self) -> Adapter | None:
        """Returns the adapters, float32."""
        if self.kind == "none":
            return None
        make = functools.partial(lora.init, config=self.config, rank=self.preset.rank, dtype=jnp.float32)
        if self.kind == "shared":
            return make(jax.random.key(2))
        leaves = jax.vmap(lambda key: make(key).leaves)(jax.random.split(jax.random.key(2), self.tasks))
        return Adapter(leaves, batched=True)

    def prompts(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns prompts_NP, lengths_N and keys_N."""
        shape = (self.tasks, self.preset.prompt_tokens)
        prompts_NP = jax.random.randint(jax.random.key(3), shape, 0, self.config.vocab_size, jnp.int32)
        return prompts_NP, jnp.full(self.tasks, shape[1], jnp.int32), jax.random.split(jax.random.key(4), self.tasks)

    def start(
        self, params: Params, prompts: tuple[jax.Array, jax.Array, jax.Array], adapters: Adapter | None
    ) -> DecodeState:
        """Encodes the prompts and draws the first tokens."""
        return start(Llama(self.config), params, *prompts, self.request, adapters)

    def advance(self, params: Params, state: DecodeState, adapters: Adapter | None, until: jax.Array) -> DecodeState:
        """Draws tokens until there are `until` of each sample."""
        return advance(Llama(self.config), params, state, self.request, adapters, until)

    def group(self, **settings: Any) -> Group:
        """Returns the group of prefill and decoding."""
        traces = {f"{self.label}: prefill": self._trace_start, self.label: self._trace_advance}
        return Group(traces, self._measure, **settings)

    def _shapes(self) -> tuple[Any, ...]:
        params = jax.eval_shape(decode.unstack, weight_shapes(self.config))
        return params, jax.eval_shape(self.prompts), jax.eval_shape(self.adapters)

    def _trace_start(self) -> Any:
        with _TRACING:  # both programs need it, in threads of their own
            return _traced_start(self)

    def _trace_advance(self) -> Any:
        params, _, adapters = self._shapes()
        until = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.jit(self.advance, donate_argnums=1).trace(params, self._trace_start().out_info, adapters, until)

    def _measure(self, programs: Mapping[str, Any]) -> dict[str, Row]:
        """Times prefill and decoding in turn, after a warm-up."""
        if len(programs) < 2:
            return {}
        first, rest = programs[f"{self.label}: prefill"], programs[self.label]
        params = self.models.unstacked(self.model, self.config)
        prompts, adapters = jax.jit(self.prompts)(), jax.jit(self.adapters)()
        times: list[tuple[float, float]] = []
        caches = 0
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            state = jax.block_until_ready(first(params, prompts, adapters))
            caches = sum(leaf.nbytes for leaf in jax.tree.leaves(state.caches))
            encoded = time.perf_counter()
            jax.block_until_ready(rest(params, state, adapters, jnp.int32(self.preset.new_tokens)))
            times.append((encoded - began, time.perf_counter() - encoded))
        prefill, decoding = ([pair[i] for pair in times[1:]] for i in range(2))
        new, rows = self.preset.new_tokens, self.tasks * self.preset.samples
        step = statistics.median(decoding) / (new - 1)
        total = statistics.median(map(sum, times[1:]))
        row: Row = {
            "seconds": statistics.median(decoding),
            "times": decoding,
            "step_seconds": step,
            "tokens_per_second": rows * new / total,
            "decoded_tokens_per_second": rows / step,
            "read_bytes_per_step": self._read_bytes(params, adapters, caches),
        }
        if bandwidth := self.bandwidth():
            row["share_of_bandwidth_limit"] = row["read_bytes_per_step"] / bandwidth / step
        if self.label in self.preset.profiles:
            state, few = first(params, prompts, adapters), min(1 + _PROFILED_STEPS, new)
            row |= {"profiled_steps": few - 1}
            row |= profile_of(lambda: rest(params, state, adapters, jnp.int32(few)), rest)
        return {
            f"{self.label}: prefill": {"seconds": statistics.median(prefill), "times": prefill},
            self.label: row,
        }

    def _read_bytes(self, params: Params, adapters: Adapter | None, caches: int) -> int:
        """Returns the bytes that a step has to read: weights, adapters, and the filled part of the caches."""
        p, slots = self.preset, self.tasks * (self.preset.prompt_tokens + self.preset.samples * self.preset.new_tokens)
        filled = self.tasks * (p.prompt_tokens + p.samples * p.new_tokens / 2)  # on average over the steps
        adapter = 2 * sum(leaf.size for leaf in jax.tree.leaves(adapters))  # bfloat16, as the weights
        return bytes_per_token(self.config, params) + adapter + round(caches * filled / slots)


@functools.cache
def _traced_start(case: Decoding) -> Any:
    """Traces prefill, once for both programs."""
    return jax.jit(case.start).trace(*case._shapes())


def from_training_weights(case: Decoding) -> Group:
    """Returns the group that samples from stacked parameters, as training does, in one program."""
    label = f"{case.label}, from the weights of training"
    p = case.preset

    def draw(params: Params, prompts: Any, adapters: Adapter | None) -> Any:
        return sampling.sample(
            Llama(case.config), params, *prompts, adapters=adapters, num_samples=p.samples, max_new_tokens=p.new_tokens
        )

    def measure(programs: Mapping[str, Any]) -> dict[str, Row]:
        args = case.models.params(case.model, case.config), jax.jit(case.prompts)(), jax.jit(case.adapters)()
        rows = timed({name: functools.partial(program, *args) for name, program in programs.items()}, REPEATS)
        for row in rows.values():
            if "seconds" in row:
                row["tokens_per_second"] = case.tasks * p.samples * p.new_tokens / row["seconds"]
        return rows

    def trace() -> Any:
        params = weight_shapes(case.config)
        return jax.jit(draw).trace(params, jax.eval_shape(case.prompts), jax.eval_shape(case.adapters))

    return Group({label: trace}, measure)
