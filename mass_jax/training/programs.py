"""Compiled programs of a run, with abstract arguments: shapes and shardings without values.

Training and evaluation call the same functions with arrays of these shapes, so that a program that was compiled ahead
of time is not compiled again.

Shape suffixes: N problems, M examples or samples of a problem, T tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.llama import Llama
from mass_jax.method import generate, meta_step, solver_grpo
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Weights
from mass_jax.method.text import Rollout, Text
from mass_jax.rows import ROWS
from mass_jax.training import learners, rollout, train
from mass_jax.types import Adapter, PyTree


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a run.

    Attributes:
        name: name in log lines.
        function: jitted function.
        args: its arguments; abstract arrays, and values of static arguments.
        kwargs: its keyword arguments.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def trace(self) -> Any:
        """Traces the function; `trace().lower().compile()` compiles it."""
        function: Any = self.function
        return function.trace(*self.args, **self.kwargs)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Abstract arguments of the programs of a run.

    Attributes:
        config: the settings.
        loop: inner loop, with the solver.
        scorer: the scorer's trunk.
        feed: places problems on the mesh.
    """

    config: Config
    loop: LoraLoop
    scorer: Llama
    feed: runtime.Feed

    def placed(self, tree: PyTree) -> Any:
        """Adds the shardings of parameters or states to shapes."""
        return jax.tree.map(_struct, tree, runtime.shardings(self.feed.mesh, tree))

    def on_mesh(self, program: Program) -> Callable[[], object]:
        """Returns a function that compiles a program on the mesh, which threads do not inherit."""

        def compile_one() -> object:
            with runtime.use_mesh(self.feed.mesh):
                return program.trace().lower().compile()

        return compile_one

    def put(self, tree: PyTree, count: int) -> Any:
        """Adds the sharding of `Feed.put` to shapes [N, ...]."""
        sharding = self.feed.sharding(count)
        return jax.tree.map(lambda leaf: _struct(leaf, sharding), tree)

    def weights(self) -> Weights:
        """Returns the generator's weights."""
        solver, config = self.loop.solver, self.config

        def init(key: jax.Array) -> Any:
            made = solver.model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
            return jax.tree.map(lambda leaf: leaf.astype(config.base_dtype), made)

        base = self.placed(jax.eval_shape(init, jax.random.key(0)))
        if solver.generator == "full":
            return Weights({}, base)
        rank, targets = config.generator_lora_rank, config.lora_targets
        return Weights(base, jax.eval_shape(lambda key: solver.init_policy(key, rank, targets), jax.random.key(0)))

    def adapters(self, count: int) -> Adapter:
        """Returns the fresh inner adapters of N problems."""
        return jax.eval_shape(self.loop.init_adapters, _keys(count))

    def adapted(self, count: int) -> Adapter:
        """Returns the adapters of N problems that no rule placed, as computations on the mesh return them."""
        return self.replicated(self.adapters(count))

    def replicated(self, tree: PyTree) -> Any:
        """Adds the sharding of what a computation on the mesh returns if its inputs are not on the mesh."""
        return jax.tree.map(lambda leaf: _struct(leaf, NamedSharding(self.feed.mesh, PartitionSpec())), tree)

    def sampling(self, weights: Weights, inner: Adapter | None, size: int, count: int, lengths: tuple[int, int],
                 temperature: float) -> Program:  # fmt: skip
        """Returns the program that samples completions.

        Args:
            weights: the generator's weights.
            inner: inner adapters, or None.
            size: N.
            count: M.
            lengths: tokens of the prompts, and of completions.
            temperature: 0 is greedy.
        """
        prompts = (_array((size, lengths[0]), jnp.int32), _array((size,), jnp.int32))
        limits = {"num_samples": count, "max_new_tokens": lengths[1], "temperature": temperature}
        args = (self.loop.solver, weights, inner, *self.put(prompts, size), self.put(_keys(size), size))
        name = rollout.sampling_name(size, count, lengths, inner is not None)
        return Program(name, generate.sample, args, limits)


def evaluation_programs(shapes: Shapes, rows: Sequence[str]) -> list[Program]:
    """Returns the programs that evaluate rows; few-shot prompts and votes have lengths that only the data tells.

    Args:
        shapes: abstract arguments.
        rows: keys of `ROWS`.
    """
    c, weights = shapes.config, shapes.weights()
    size, count, answer = c.eval_batch, c.num_test_examples, (c.max_prompt_tokens, c.max_answer_tokens)
    chosen = [row for row in (ROWS[name] for name in rows) if row.answers == "greedy"]
    found = []
    if any(row.examples == "none" for row in chosen):
        found.append(shapes.sampling(weights, None, size, 1, answer, 0.0))
    if any(row.examples == "self" for row in chosen):
        lengths = c.max_generator_prompt_tokens, c.max_example_tokens
        found.append(shapes.sampling(weights, None, size, count, lengths, c.temperature))
    if any(row.examples != "none" for row in chosen):
        texts = _text((size, count, c.max_prompt_tokens + c.max_answer_tokens))
        kept_NM = _array((size, count), jnp.float32)
        found.append(_adaptation(shapes, weights, shapes.adapted(size), kept_NM, texts))
        found.append(shapes.sampling(weights, shapes.adapted(size), size, 1, answer, 0.0))
    return found


def training_programs(shapes: Shapes, outer: str | None, control: str | None = None) -> list[Program]:
    """Returns the programs of a training run.

    Args:
        shapes: abstract arguments.
        outer: outer loss, "gold" or "verifier"; None is Solver GRPO.
        control: as for `learners.mass_learner`.
    """
    c, weights = shapes.config, shapes.weights()
    size, answer = c.tasks_per_step, (c.max_prompt_tokens, c.max_answer_tokens)
    if outer is None:
        count = c.num_solver_attempts
        return [shapes.sampling(weights, None, size, count, answer, c.temperature), _grpo_step(shapes, weights)]
    written = c.max_generator_prompt_tokens, c.max_example_tokens
    found = [shapes.sampling(weights, None, size, c.num_examples, written, c.temperature)]
    learner = learners.mass_learner(c, shapes.loop, shapes.scorer, outer, control)
    state, batch = _state(shapes, learner, weights), _batch(shapes, outer)
    if outer == "verifier":
        scores_NM = _array((size, c.num_examples), jnp.float32)
        scores_NM = _struct(scores_NM, shapes.feed.sharding(size))
        name = rollout.scores_name(batch.scorer_texts.tokens_BT.shape)
        found.append(Program(name, rollout.scores_jit, (learner.scorer, state.scorer, batch.scorer_texts)))
        found.append(_adaptation(shapes, weights, batch.adapters, scores_NM, batch.examples))
        found.append(shapes.sampling(weights, shapes.adapted(size), size, c.num_attempts, answer, c.temperature))
    label = " ".join(filter(None, ("mass", outer, control)))
    args = (learner, state, weights.base, batch, shapes.replicated(jax.eval_shape(lambda: jax.random.key(0))))
    return [*found, Program(f"the meta-step of {label}", train.meta_step_jit, args)]


def run_programs(shapes: Shapes, rows: Sequence[str]) -> list[Program]:
    """Returns the programs that train and evaluate rows, without repetitions, the longest to compile first.

    Args:
        shapes: abstract arguments.
        rows: keys of `ROWS`.
    """
    runs = {run.name: run for run in (ROWS[name].training for name in rows) if run is not None}
    found = evaluation_programs(shapes, rows)
    for run in runs.values():
        found += training_programs(shapes, run.outer, run.control)
    return list({program.name: program for program in found}.values())


def _adaptation(shapes: Shapes, weights: Weights, adapters: Adapter, scores_NM: Any, texts: Text) -> Program:
    """Returns the program that adapts to examples."""
    name = rollout.adaptation_name(texts.tokens_BT.shape)
    return Program(name, rollout.adapt_jit, (shapes.loop, weights, adapters, scores_NM, texts))


def _state(shapes: Shapes, learner: meta_step.Learner, weights: Weights) -> meta_step.MetaState:
    """Returns the state of meta-training."""
    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(lambda policy: meta_step.init_state(jax.random.key(0), learner, policy), weights.policy)
    return shapes.placed(state)


def _batch(shapes: Shapes, outer: str) -> meta_step.TaskBatch:
    """Returns the batch of one meta-training step."""
    c, size = shapes.config, shapes.config.tasks_per_step
    solutions = 1 if outer == "gold" else c.num_attempts
    answer, example = c.max_prompt_tokens + c.max_answer_tokens, c.max_prompt_tokens + c.max_example_tokens
    written = (size, c.num_examples, c.max_generator_prompt_tokens + c.max_example_tokens)
    rows: Any = (_text((size, c.num_examples, answer)), _text((size, c.num_examples, example)), _rollout(written))
    rows += (_rollout((size, solutions, answer)), _array((size, solutions), jnp.float32))
    started_NMT = _array(written, jnp.float32) if c.kl_coef else None
    fields = (*shapes.put(rows, size), shapes.placed(shapes.adapters(size)), started_NMT)
    return meta_step.TaskBatch._make(fields)


def _grpo_step(shapes: Shapes, weights: Weights) -> Program:
    """Returns the program of one step of Solver GRPO."""
    c, size, count = shapes.config, shapes.config.tasks_per_step, shapes.config.num_solver_attempts
    learner = learners.grpo_learner(c, shapes.loop.solver)
    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(lambda policy: solver_grpo.init_state(learner, policy), weights.policy)
    rows: Any = (_rollout((size, count, c.max_prompt_tokens + c.max_answer_tokens)), _array((size, count), jnp.float32))
    args = (learner, shapes.placed(state), weights.base, *shapes.put(rows, size))
    return Program(train.GRPO_STEP, train.grpo_step_jit, args)


def _struct(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _keys(count: int) -> Any:
    return jax.eval_shape(lambda key: jax.random.split(key, count), jax.random.key(0))


def _text(shape: tuple[int, ...]) -> Text:
    return Text(_array(shape, jnp.int32), _array(shape, jnp.bool_), _array(shape, jnp.float32))


def _rollout(shape: tuple[int, ...]) -> Rollout:
    return Rollout(_text(shape), _array(shape, jnp.float32))
