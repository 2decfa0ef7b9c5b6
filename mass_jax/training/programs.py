"""Compiled programs of a run, with abstract arguments: shapes and shardings without values.

Training and evaluation call the same functions with arrays of these shapes, so that a program that was compiled ahead
of time is not compiled again.

Shape suffixes: N problems, M examples or samples of a problem, T tokens.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.config.config import OPTIMIZERS
from mass_jax.expression import CUSTOM
from mass_jax.llama import Llama
from mass_jax.method import generate, learning, meta_step
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Weights
from mass_jax.method.policy_state import init_state
from mass_jax.method.text import Rollout, Text
from mass_jax.own_function import own_code
from mass_jax.rows import ROWS, TrainingRun
from mass_jax.training import compiling, learners, rollout, train, train_solver
from mass_jax.training.components import Components
from mass_jax.types import Adapter, PyTree


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a run.

    Attributes:
        name: name in log lines.
        function: jitted function.
        args: its arguments; abstract arrays, and values of static arguments.
        kwargs: its keyword arguments, all of them static.
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

    def put(self, tree: PyTree, count: int) -> Any:
        """Adds the sharding of `Feed.put` to shapes [N, ...]."""
        sharding = self.feed.sharding(count)
        return jax.tree.map(lambda leaf: _struct(leaf, sharding), tree)

    def replicated(self, tree: PyTree) -> Any:
        """Adds the sharding of what a computation on the mesh returns if its inputs are not on the mesh."""
        return jax.tree.map(lambda leaf: _struct(leaf, NamedSharding(self.feed.mesh, PartitionSpec())), tree)

    def pretrained(self) -> Weights:
        """Returns the pretrained weights."""
        solver, config = self.loop.solver, self.config

        def init(key: jax.Array) -> Any:
            made = solver.model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
            return jax.tree.map(lambda leaf: leaf.astype(config.base_dtype), made)

        base = self.placed(jax.eval_shape(init, _key()))
        if solver.generator == "full":
            return Weights({}, base)
        rank, targets = config.generator_lora_rank, config.lora_targets
        policy = jax.eval_shape(lambda key: solver.init_policy(key, rank, targets), _key())
        return Weights(base, self.replicated(policy))

    def meta_state(self, learner: meta_step.Learner) -> Any:
        """Returns the state of meta-training."""

        def init(key: jax.Array, policy: PyTree) -> Any:
            return meta_step.init_state(key, learner, policy)

        with jax.numpy_dtype_promotion("standard"):  # some optimizers of optax mix counts and floats
            return self.placed(jax.eval_shape(init, _key(), self.pretrained().policy))

    def policy_state(self, optimizer: optax.GradientTransformation) -> Any:
        """Returns the state of a baseline that trains the solver alone."""
        policy = self.pretrained().policy
        with jax.numpy_dtype_promotion("standard"):
            return self.placed(jax.eval_shape(lambda params: init_state(optimizer, params), policy))

    def adapters(self, count: int) -> Adapter:
        """Returns the inner adapters of N problems."""
        return jax.eval_shape(self.loop.init_adapters, _keys(count))

    def batch(self, gold: bool) -> meta_step.TaskBatch:
        """Returns the batch of one meta-training step, with gold solutions or with attempts."""
        c, size = self.config, self.config.tasks_per_step
        solutions = 1 if gold else c.num_attempts
        answer, example = c.max_prompt_tokens + c.max_answer_tokens, c.max_prompt_tokens + c.max_example_tokens
        written = (size, c.num_examples, c.max_generator_prompt_tokens + c.max_example_tokens)
        fields: Any = (
            _text((size, c.num_examples, answer)),
            _text((size, c.num_examples, example)),
            _rollout(written),
            _rollout((size, solutions, answer)),
            _array((size, solutions), jnp.float32),
        )
        started_NMT = _array(written, jnp.float32) if c.kl_coef else None
        fields, started_NMT = self.put((fields, started_NMT), size)
        return meta_step.TaskBatch._make((*fields, self.placed(self.adapters(size)), started_NMT))

    def sampling(
        self, weights: Weights, size: int, count: int, lengths: tuple[int, int], temperature: float, adapted: bool
    ) -> Program:
        """Returns the program that samples completions.

        Args:
            weights: the generator's weights.
            size: N.
            count: M.
            lengths: tokens of the prompts, and of completions.
            temperature: 0 is greedy.
            adapted: whether each problem has its own adapter.
        """
        prompts = (_array((size, lengths[0]), jnp.int32), _array((size,), jnp.int32))
        limits = {"num_samples": count, "max_new_tokens": lengths[1], "temperature": temperature}
        inner = self.replicated(self.adapters(size)) if adapted else None
        args = (self.loop.solver, weights, inner, *self.put(prompts, size), self.put(_keys(size), size))
        return Program(rollout.sampling_name(size, count, lengths, adapted), generate.sample, args, limits)


def evaluation_programs(shapes: Shapes, rows: Sequence[str]) -> list[Program]:
    """Returns the programs that evaluate rows, without those whose shapes depend on the data.

    Args:
        shapes: abstract arguments.
        rows: keys of `ROWS`; few-shot prompts and several answers have lengths that only the data tells.
    """
    c, weights = shapes.config, shapes.pretrained()
    size, count, answer = c.eval_batch, c.num_test_examples, (c.max_prompt_tokens, c.max_answer_tokens)
    examples = {ROWS[name].examples for name in rows if ROWS[name].answers == "greedy"}
    found = [shapes.sampling(weights, size, 1, answer, 0.0, adapted=False)] if "none" in examples else []
    if "self" in examples:
        lengths = c.max_generator_prompt_tokens, c.max_example_tokens
        found.append(shapes.sampling(weights, size, count, lengths, c.temperature, adapted=False))
    if examples - {"none"}:
        text = _text((size, count, sum(answer)))
        kept_NM, adapters = _array((size, count), jnp.float32), shapes.replicated(shapes.adapters(size))
        name = rollout.adaptation_name(text.tokens_BT.shape)
        found.append(Program(name, rollout.adapt_jit, (shapes.loop, weights, adapters, kept_NM, text)))
        found.append(shapes.sampling(weights, size, 1, answer, 0.0, adapted=True))
    return found


def training_programs(shapes: Shapes, run: TrainingRun) -> list[Program]:
    """Returns the programs of a training run in the order of their first calls."""
    if run.outer is not None:
        return _mass_programs(shapes, run.outer, run.control)
    return {"solver_grpo": _grpo_programs, "solver_sft": _sft_programs}[run.learner](shapes)


def _mass_programs(shapes: Shapes, outer: str, control: str | None) -> list[Program]:
    c, size = shapes.config, shapes.config.tasks_per_step
    learner = learners.mass_learner(c, shapes.loop, shapes.scorer, outer, control)
    state, base, batch = shapes.meta_state(learner), shapes.pretrained().base, shapes.batch(gold=outer == "gold")
    weights = learning.weights_of(base, state)
    written = c.max_generator_prompt_tokens, c.max_example_tokens
    found = [shapes.sampling(weights, size, c.num_examples, written, c.temperature, adapted=False)]
    if outer == "verifier":
        texts, examples, loop = batch.scorer_texts, batch.examples, shapes.loop
        args: Any = (learner.scorer, state.scorer, texts, loop.tasks_at_a_time)
        found.append(Program(rollout.scores_name(texts.tokens_BT.shape), rollout.scores_jit, args))
        args = (loop, weights, batch.adapters, shapes.put(_array((size, c.num_examples), jnp.float32), size), examples)
        found.append(Program(rollout.adaptation_name(examples.tokens_BT.shape, scored=True), rollout.adapt_jit, args))
        answer = c.max_prompt_tokens, c.max_answer_tokens
        found.append(shapes.sampling(weights, size, c.num_attempts, answer, c.temperature, adapted=True))
    args = (learner, state, base, batch, shapes.replicated(_key()))
    return [*found, Program(train.meta_step_name(outer, control), train.meta_step_jit, args)]


def _grpo_programs(shapes: Shapes) -> list[Program]:
    c, size, count = shapes.config, shapes.config.tasks_per_step, shapes.config.num_solver_attempts
    learner = learners.grpo_learner(c, shapes.loop.solver)
    start = shapes.pretrained()
    state = shapes.policy_state(learner.optimizer)
    answer = c.max_prompt_tokens, c.max_answer_tokens
    rows: Any = (_rollout((size, count, sum(answer))), _array((size, count), jnp.float32))
    args = (learner, state, start.base, *shapes.put(rows, size))
    weights = Weights(start.base, state.policy)
    sampling = shapes.sampling(weights, size, count, answer, c.temperature, adapted=False)
    return [sampling, Program(train_solver.GRPO_STEP, train_solver.grpo_step_jit, args)]


def _sft_programs(shapes: Shapes) -> list[Program]:
    c, size = shapes.config, shapes.config.tasks_per_step
    learner = learners.sft_learner(c, shapes.loop.solver)
    text = shapes.put(_text((size, 1, c.max_prompt_tokens + c.max_answer_tokens)), size)
    args = (learner, shapes.policy_state(learner.optimizer), shapes.pretrained().base, text)
    return [Program(train_solver.SFT_STEP, train_solver.sft_step_jit, args)]


def run_programs(shapes: Shapes, rows: Sequence[str]) -> list[Program]:
    """Returns the programs that evaluate and train rows, in the order of their first calls.

    Of programs with equal names, it returns the first: the others are the same, or differ in the placement of arrays.

    Args:
        shapes: abstract arguments.
        rows: keys of `ROWS`, in the order of their evaluation.
    """
    runs = {run.name: run for run in (ROWS[name].training for name in rows) if run is not None}
    found = evaluation_programs(shapes, rows)
    for run in runs.values():
        found += training_programs(shapes, run)
    first: dict[str, Program] = {}
    for program in found:
        first.setdefault(program.name, program)
    return [*first.values()]


@contextlib.contextmanager
def compiling_ahead(components: Components, rows: Sequence[str], threads: int) -> Iterator[None]:
    """Context that compiles the programs of rows ahead of time.

    Runs on several devices, with another sampler, or with an optimizer of the user's own code compile each program when
    it is called.

    Args:
        components: the components of the run.
        rows: keys of `ROWS`, in the order of their evaluation.
        threads: number of programs to compile at once; 0 compiles nothing ahead of time.
    """
    rollouts, config = components.rollouts, components.config
    texts = [getattr(config, name) for name in OPTIMIZERS]
    has_own_code = config.inner_optimizer == CUSTOM or any(map(own_code, texts))
    mesh = rollouts.feed.mesh
    if not threads or has_own_code or not rollouts.sampler.is_native or mesh.size > 1:
        yield
        return

    def compile_one(program: Program) -> None:
        with runtime.use_mesh(mesh):  # threads do not inherit it
            program.trace().lower().compile()

    shapes = Shapes(config, rollouts.loop, components.scorer, rollouts.feed)
    todo = {program.name: functools.partial(compile_one, program) for program in run_programs(shapes, rows)}
    with compiling.ahead(todo, threads):
        yield


def _struct(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _keys(count: int) -> Any:
    return jax.eval_shape(lambda key: jax.random.split(key, count), _key())


def _text(shape: tuple[int, ...]) -> Text:
    return Text(_array(shape, jnp.int32), _array(shape, jnp.bool_), _array(shape, jnp.float32))


def _rollout(shape: tuple[int, ...]) -> Rollout:
    return Rollout(_text(shape), _array(shape, jnp.float32))
