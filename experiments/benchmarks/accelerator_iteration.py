"""Case of one meta-training iteration: the programs that training runs, on random weights and tokens."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.accelerator_cases import REPEATS
from experiments.benchmarks.accelerator_run import Group, Row, timed
from experiments.benchmarks.accelerator_shapes import Preset
from experiments.presets import llama31_8b_h100, smollm2
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.llama import LlamaConfig
from mass_jax.rows import ROWS
from mass_jax.training import architecture, programs
from mass_jax.types import PyTree

Context = Callable[[], contextlib.AbstractContextManager[Any]]
NAMES = ("sampling of examples", "scores", "adaptation", "sampling of attempts", "meta-step")
_STEP = 1000  # after the warm-up, so that the generator is trained


def settings(preset: Preset) -> Config:
    """Returns the settings of the preset smollm2 with the benchmark's numbers of tasks and examples."""
    config = smollm2.config()
    return dataclasses.replace(
        config, tasks_per_step=preset.step_tasks, num_examples=preset.step_examples, base_dtype="bfloat16"
    )


def groups(preset: Preset) -> list[Group]:
    """Returns the meta-step, then the other phases of the iteration."""
    config = settings(preset)
    found, context = _programs(config, preset.small)
    labels = [f"SmolLM2: {name}, {preset.step_tasks} tasks" for name in NAMES]
    by_label = dict(zip(labels, found, strict=True))

    def measure(compiled: Mapping[str, Any]) -> dict[str, Row]:
        calls = {label: _call(program, by_label[label], config) for label, program in compiled.items()}
        rows = timed(calls, REPEATS, preset.profiled(compiled))
        if len(compiled) > 1 and all("seconds" in row for row in rows.values()):
            total = sum(row["seconds"] for row in rows.values())
            rows[f"SmolLM2: all phases but the meta-step, {preset.step_tasks} tasks"] = {"seconds": total}
        return rows

    def group(chosen: list[str]) -> Group:
        return Group({label: by_label[label].trace for label in chosen}, measure, context)

    return [group(labels[-1:]), group(labels[:-1])]


def paper_step(preset: Preset) -> Group:
    """Returns the meta-step of the preset llama31_8b_h100, which is compiled for its memory and not run."""
    count = preset.step_tokens
    config = dataclasses.replace(
        llama31_8b_h100.config(),
        max_prompt_tokens=count,
        max_generator_prompt_tokens=count,
        max_example_tokens=count,
        max_answer_tokens=count,
    )
    found, context = _programs(config, preset.large)
    label = f"8B: meta-step of the paper, {2 * count} tokens, only compiled"
    return Group({label: found[-1].trace}, lambda compiled: {label: {}}, context)


def _programs(config: Config, shape: LlamaConfig) -> tuple[list[programs.Program], Context]:
    """Returns the programs of a training run on one device, and the context of their mesh."""
    mesh = runtime.make_mesh("auto", jax.devices()[:1])
    context: Context = functools.partial(runtime.use_mesh, mesh)
    loop, scorer = architecture.models(config, architecture.execution(config, shape))
    run = ROWS["mass"].training
    assert run is not None
    with context():
        return programs.training_programs(programs.Shapes(config, loop, scorer, runtime.Feed(mesh)), run), context


def _call(compiled: Any, program: programs.Program, config: Config) -> Callable[[], Any]:
    """Returns a call of a program; one that returns a state, whose buffers are donated, continues from it."""
    length = config.max_prompt_tokens if "by adapted models" in program.name else config.max_generator_prompt_tokens
    args = [_filled(arg, length) for arg in program.args if _is_dynamic(arg)]
    if not program.name.startswith("the meta-step"):
        return functools.partial(compiled, *args)

    def step() -> Any:
        args[0], output = compiled(*args)
        return output

    return step


def _is_dynamic(arg: Any) -> bool:
    """Returns whether an argument consists of abstract arrays; others are static."""
    return all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arg))


def _filled(tree: PyTree, length: int) -> PyTree:
    """Returns arrays for abstract ones: full masks, random tokens and small random numbers."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    keys = jax.random.split(jax.random.key(0), len(leaves)) if leaves else ()
    made = [
        _leaf(jax.tree_util.keystr(path), leaf, key, length) for (path, leaf), key in zip(leaves, keys, strict=True)
    ]
    placed = [jax.device_put(array, leaf.sharding) for array, (_, leaf) in zip(made, leaves, strict=True)]
    return jax.tree.unflatten(structure, placed)


def _leaf(path: str, leaf: Any, key: jax.Array, length: int) -> jax.Array:
    """Returns one array."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(key, leaf.shape)
    if leaf.dtype == jnp.bool_ or "target" in path or path.endswith("['weight']"):
        return jnp.ones(leaf.shape, leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        if leaf.ndim < 2:
            return jnp.full(leaf.shape, length if leaf.ndim else _STEP, leaf.dtype)
        return jax.random.randint(key, leaf.shape, 3, 60, leaf.dtype)  # no end token
    return (0.02 * jax.random.normal(key, leaf.shape, jnp.float32)).astype(leaf.dtype)
