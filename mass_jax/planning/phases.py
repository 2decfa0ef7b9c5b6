"""The programs of one meta-iteration with abstract arguments: shapes and places, and not one weight.

Letters: N tasks, M examples of a task, J solutions of a task, T tokens, P prompt slots.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from mass_jax.config import Config
from mass_jax.llama import LlamaConfig, decode, lora
from mass_jax.method import meta_step, score
from mass_jax.method.generate import sample
from mass_jax.method.models import Weights
from mass_jax.method.text import Rollout, Text
from mass_jax.runtime import Feed, rules
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.sample import Request, start
from mass_jax.training import train
from mass_jax.training.components import Parts, execution, models


class Phase(NamedTuple):
    """One program: what is jitted, on what, and which of its arguments stay on the chip in other phases too."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    held: Any


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One meta-iteration of a configuration on a mesh.

    Args:
        config: the settings.
        shape: architecture of the model.
        mesh: on devices that are here or only described.
    """

    config: Config
    shape: LlamaConfig
    mesh: Mesh

    def with_remat(self, remat: str) -> "Iteration":
        """The same with another rematerialization of blocks."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, remat=remat))

    def parts(self, adjoint: str | None = None) -> Parts:
        """Model, inner loop and scorer without weights, tokenizer or task."""
        config = self.config if adjoint is None else dataclasses.replace(self.config, adjoint=adjoint)
        llama_config = execution(config, self.shape)
        loop, scorer = models(config, llama_config)
        nothing: Any = None
        return Parts(config, nothing, nothing, loop, scorer, nothing, pathlib.Path(), Feed(self.mesh))

    def learner(self, adjoint: str | None = None) -> meta_step.Learner:
        """What meta-trains, with another adjoint if asked for."""
        outer = "gold" if self.config.outer == "gold" else "verifier"
        return self.parts(adjoint).learner(outer)

    def placed(self, tree: Any) -> Any:
        """Shapes of weights or states with the places that the table of rules gives them."""
        return jax.tree.map(_struct, tree, rules.shardings(self.mesh, tree))

    def state(self) -> tuple[meta_step.MetaState, Any]:
        """The state that training changes, and the frozen base weights."""
        learner, config = self.learner(), self.config

        def weights(key: jax.Array) -> Any:
            made = learner.solver.model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
            return jax.tree.map(lambda leaf: leaf.astype(config.base_dtype), made)

        base = jax.eval_shape(weights, jax.random.key(0))
        policy = base
        if config.generator == "lora":
            policy = jax.eval_shape(
                lambda key: lora.init(key, learner.solver.config, config.generator_lora_rank, config.lora_targets),
                jax.random.key(0),
            )
        with jax.numpy_dtype_promotion("standard"):
            state = jax.eval_shape(lambda p: meta_step.init_state(jax.random.key(0), learner, p), policy)
        return self.placed(state), self.placed(base) if config.generator == "lora" else {}

    def tasks(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """An array [N, ...] as the host feeds it: split over tasks."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, rules.spec("tasks")))

    def text(self, rows: int, length: int) -> Text:
        """Rows [N, rows, length]."""
        size = (self.config.tasks_per_step, rows, length)
        return Text(self.tasks(size, jnp.int32), self.tasks(size, jnp.bool_), self.tasks(size, jnp.float32))

    def rollout(self, rows: int, length: int) -> Rollout:
        """Samples [N, rows, length] with their log-probabilities."""
        return Rollout(self.text(rows, length), self.tasks((self.config.tasks_per_step, rows, length), jnp.float32))

    def batch(self) -> meta_step.TaskBatch:
        """One step's tasks with what was written and attempted for them."""
        c = self.config
        solutions = 1 if c.outer == "gold" else c.num_attempts
        answer, example = c.max_prompt_tokens + c.max_answer_tokens, c.max_prompt_tokens + c.max_example_tokens
        written = c.max_generator_prompt_tokens + c.max_example_tokens
        keys = jax.eval_shape(lambda key: jax.random.split(key, c.tasks_per_step), jax.random.key(0))
        return meta_step.TaskBatch(
            examples=self.text(c.num_examples, answer),
            scorer_texts=self.text(c.num_examples, example),
            generated=self.rollout(c.num_examples, written),
            solutions=self.rollout(solutions, answer),
            right_NJ=self.tasks((c.tasks_per_step, solutions), jnp.float32),
            adapters=self.placed(jax.eval_shape(self.learner().loop.init_adapters, keys)),
        )


def phases(iteration: Iteration) -> list[Phase]:
    """The programs of one iteration, in their order; the run's own functions."""
    state, base = iteration.state()
    return [
        *_sampling(iteration, Weights(base, state.policy)),
        _score(iteration, state),
        meta_gradient(iteration, "adapt + meta-gradient"),
        _outer_update(iteration, state, base),
        _meta_step(iteration, state, base),
    ]


def _sampling(iteration: Iteration, weights: Weights) -> list[Phase]:
    """Writing the examples; the attempts after it are fewer."""
    config, solver = iteration.config, iteration.learner().solver
    count = config.tasks_per_step
    prompts_NP = iteration.tasks((count, config.max_generator_prompt_tokens), jnp.int32)
    keys_N = jax.eval_shape(lambda key: jax.random.split(key, count), jax.random.key(0))
    keys_N = _struct(keys_N, NamedSharding(iteration.mesh, rules.spec("tasks")))
    request = Request(config.num_examples, config.max_example_tokens, Settings(config.temperature), (), 0)

    def prefill(weights: Weights, prompts_NP: Any, lengths_N: Any, keys_N: Any) -> Any:
        params = decode.unstack(solver.params(weights))
        return start(solver.model, params, prompts_NP, lengths_N, keys_N, request, solver.adapter(weights))

    def decode_all(weights: Weights, prompts_NP: Any, lengths_N: Any, keys_N: Any) -> Any:
        limits = {"num_samples": config.num_examples, "max_new_tokens": config.max_example_tokens}
        return sample(solver, weights, None, prompts_NP, lengths_N, keys_N, temperature=config.temperature, **limits)

    args = (weights, prompts_NP, iteration.tasks((count,), jnp.int32), keys_N)
    return [
        Phase("prefill", jax.jit(prefill), args, weights),
        Phase("prefill + decode", jax.jit(decode_all), args, weights),
    ]


def _score(iteration: Iteration, state: meta_step.MetaState) -> Phase:
    trunk = iteration.learner().scorer
    texts = iteration.batch().scorer_texts
    scores = jax.jit(lambda eta, text: score.scores(trunk, eta, text))
    return Phase("score", scores, (state.scorer, texts), state.scorer)


def meta_gradient(iteration: Iteration, name: str, adjoint: str | None = None) -> Phase:
    """Adaptation of each task and the exact derivative of its outer loss in its scores."""
    learner, (state, base) = iteration.learner(adjoint), iteration.state()
    weights, batch = Weights(base, state.policy), iteration.batch()
    scores_NM = iteration.tasks(batch.examples.tokens_BT.shape[:2], jnp.float32)

    def gradients(weights: Weights, scores_NM: jax.Array, batch: meta_step.TaskBatch) -> Any:
        found = meta_step.score_gradients(learner, weights, scores_NM, batch)
        return found.value, found.meta

    return Phase(name, jax.jit(gradients), (weights, scores_NM, batch), weights)


def _outer_update(iteration: Iteration, state: meta_step.MetaState, base: Any) -> Phase:
    learner, batch = iteration.learner(), iteration.batch()
    rewards_NM = iteration.tasks(batch.examples.tokens_BT.shape[:2], jnp.float32)

    def update(state: Any, base: Any, batch: Any, rewards_NM: Any) -> Any:
        policy, opt_state, _ = meta_step.policy_update(learner, state, base, batch, rewards_NM)
        return rules.constrain(state._replace(policy=policy, policy_opt_state=opt_state))

    return Phase("outer update", jax.jit(update, donate_argnums=0), (state, base, batch, rewards_NM), (state, base))


def _meta_step(iteration: Iteration, state: meta_step.MetaState, base: Any) -> Phase:
    """The program of training itself: score, adaptation, meta-gradient and both updates in one."""
    args = (iteration.learner(), state, base, iteration.batch(), jax.eval_shape(lambda: jax.random.key(0)))
    return Phase("meta-step", train.meta_step_jit, args, (state, base))


def bytes_on_chip(tree: Any) -> int:
    """Bytes of abstract arrays that one chip holds, without the padding of its tiles."""
    leaves = jax.tree.leaves(tree)
    return sum(_count(leaf) * leaf.dtype.itemsize for leaf in leaves)


def _count(leaf: jax.ShapeDtypeStruct) -> int:
    sharding: Any = leaf.sharding
    size = 1
    for length in sharding.shard_shape(leaf.shape) if sharding is not None else leaf.shape:
        size *= length
    return size


def _struct(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
