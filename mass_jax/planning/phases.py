"""Programs of one meta-iteration, with abstract arguments that have shapes and shardings but no values.

Shape suffixes: N problems, M examples of a problem, J solutions of a problem, T tokens, P prompt slots.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.llama import LlamaConfig, decode
from mass_jax.method import meta_step, score
from mass_jax.method.generate import sample
from mass_jax.method.models import Weights
from mass_jax.method.text import Text
from mass_jax.runtime import rules
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.loop import Request, start
from mass_jax.training import train
from mass_jax.training.architecture import check_attention, execution, models
from mass_jax.training.learners import mass_learner
from mass_jax.training.programs import Shapes
from mass_jax.training.rollout import adapt_jit
from mass_jax.types import PyTree


class Phase(NamedTuple):
    """One program of an iteration.

    Attributes:
        name: name of the phase.
        function: jitted function.
        args: its abstract arguments.
        held: the arguments that stay on the chip in other phases too.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    held: Any


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One meta-iteration of a configuration on a mesh.

    Attributes:
        config: settings of the run.
        shape: architecture of the model.
        mesh: device mesh, of attached devices or those of a TPU topology.
    """

    config: Config
    shape: LlamaConfig
    mesh: Mesh

    def with_remat(self, remat: str) -> "Iteration":
        """Returns this iteration with another rematerialization of blocks."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, remat=remat))

    def learner(self, adjoint: str | None = None) -> meta_step.Learner:
        """Returns the learner of MASS, with another adjoint if one is given; loads no weights, tokenizer or task."""
        config = self.config
        if adjoint is not None:  # whose own settings may not apply to the other one
            config = dataclasses.replace(
                config, adjoint=adjoint, adjoint_remat="auto", adjoint_store="device", product_chunk=0
            )
        loop, scorer = models(config, execution(config, self.shape))
        return mass_learner(config, loop, scorer, "gold" if config.outer == "gold" else "verifier")

    def abstract(self) -> Shapes:
        """Returns the abstract arguments of training.

        Raises:
            ValueError: --attention=kernel does not run on these devices.
        """
        check_attention(self.config, self.mesh)
        return Shapes(self.config, *models(self.config, execution(self.config, self.shape)), runtime.Feed(self.mesh))

    def state(self) -> tuple[meta_step.MetaState, Any]:
        """Returns the state that training updates, and the frozen base weights ({} if there are none)."""
        abstract = self.abstract()
        return abstract.meta_state(self.learner()), abstract.pretrained().base

    def tasks(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Returns an abstract array [N, ...] that is split over problems, as the host feeds it."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, rules.spec("tasks")))

    def text(self, rows: int, length: int) -> Text:
        """Returns abstract text of shape [N, rows, length]."""
        size = (self.config.tasks_per_step, rows, length)
        return Text(self.tasks(size, jnp.int32), self.tasks(size, jnp.bool_), self.tasks(size, jnp.float32))

    def batch(self) -> meta_step.TaskBatch:
        """Returns the abstract batch of one step: problems with their examples and attempts."""
        return self.abstract().batch(gold=self.config.outer == "gold")


def phases(iteration: Iteration) -> list[Phase]:
    """Returns the programs of one iteration in order; they call the functions that training runs."""
    state, base = iteration.state()
    return [
        *_sampling(iteration, Weights(base, state.policy)),
        _score(iteration, state),
        meta_gradient(iteration, "adapt + meta-gradient"),
        _outer_update(iteration, state, base),
        meta_step_of(iteration),
    ]


def _sampling(iteration: Iteration, weights: Weights) -> list[Phase]:
    """Returns the phases that sample examples; sampling attempts takes less memory."""
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
    """Returns the phase that adapts to each problem and differentiates its outer loss with respect to its scores."""
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


def meta_step_of(iteration: Iteration) -> Phase:
    """Returns the program of training: scores, adaptation, meta-gradient and both updates in one."""
    state, base = iteration.state()
    args = (iteration.learner(), state, base, iteration.batch(), jax.eval_shape(lambda: jax.random.key(0)))
    return Phase("meta-step", train.meta_step_jit, args, (state, base))


def evaluation_of(iteration: Iteration) -> Phase | None:
    """Returns the adaptation to a batch of --eval_batch problems; None if the mesh does not split them evenly."""
    config = dataclasses.replace(iteration.config, tasks_per_step=iteration.config.eval_batch)
    if config.eval_batch % iteration.mesh.shape["data"]:
        return None
    batches, (state, base) = dataclasses.replace(iteration, config=config), iteration.state()
    examples = batches.text(config.num_test_examples, config.max_prompt_tokens + config.max_answer_tokens)
    kept_NM = batches.tasks((config.eval_batch, config.num_test_examples), jnp.float32)
    weights = Weights(base, state.policy)
    args = (iteration.learner().loop, weights, batches.batch().adapters, kept_NM, examples)
    return Phase("evaluation", adapt_jit, args, weights)


def bytes_on_chip(tree: PyTree) -> int:
    """Returns the bytes of abstract arrays on one chip, without padding."""
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
