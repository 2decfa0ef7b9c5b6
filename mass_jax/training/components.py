"""From a configuration to the parts of a run: model, tokenizer, task, problems, inner loop."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.llama import Llama, LlamaConfig, loading, lora, tokenizer, weights
from mass_jax.method import adapt, meta_step, objective, policy_gradient, score, solver_grpo
from mass_jax.method.generate import Dialogue
from mass_jax.method.models import Solver, Weights
from mass_jax.tasks.base import Problems
from mass_jax.tasks.registry import Chosen, open_task


@dataclasses.dataclass(frozen=True)
class Parts:
    """What every run of a configuration shares.

    Args:
        config: the settings.
        chosen: the task with its problems.
        dialogue: prompts, parsing, verification.
        loop: inner loop, with the solver model and the adjoint.
        scorer: the scorer's trunk.
        params: pretrained parameters.
        directory: where the model's files are.
        feed: what puts this process's tasks on the mesh.
    """

    config: Config
    chosen: Chosen
    dialogue: Dialogue
    loop: adapt.LoraLoop
    scorer: Llama
    params: Any
    directory: pathlib.Path
    feed: runtime.Feed

    @property
    def solver(self) -> Solver:
        return self.loop.solver

    def pretrained(self) -> Weights:
        """The model as it was loaded, with nothing trained on top."""
        return self.fresh_weights(jax.random.key(0))  # a fresh adapter changes nothing, whatever its key

    def fresh_weights(self, key: jax.Array) -> Weights:
        """The generator before meta-training; a copy where it will be trained, since training donates its buffers."""
        if self.solver.generator == "full":
            return Weights({}, jax.tree.map(jnp.copy, self.params))
        rank, targets = self.config.generator_lora_rank, self.config.lora_targets
        return Weights(self.params, lora.init(key, self.solver.config, rank, targets))

    def problems(self, seed: int) -> Problems:
        """The problem sets of one meta-training seed."""
        return self.chosen.problems(seed)

    def on_every_process(self) -> "Parts":
        """The same, where every process handles all tasks on its host: for evaluation, of which one keeps records."""
        return dataclasses.replace(self, feed=dataclasses.replace(self.feed, whole=True))

    def close(self) -> None:
        """Frees what the task holds, such as worker processes."""
        self.chosen.close()

    def learner(self, outer: str, control: str | None = None) -> meta_step.Learner:
        """What meta-trains; `control` is None, "shuffled" or "unrewarded"."""
        config = self.config
        reinforce = self._surrogate()
        decay = config.steps - config.warmup_steps if config.lr_schedule == "linear" else None
        return meta_step.Learner(
            loop=self.loop,
            scorer=self.scorer,
            objective=objective.GeneratorObjective(
                reinforce, gold=outer == "gold", gamma=config.gamma, reward_examples=control != "unrewarded"
            ),
            policy_optimizer=meta_step.outer_optimizer(config.generator_lr, config.grad_clip, decay),
            scorer_optimizer=meta_step.outer_optimizer(config.scorer_lr, config.grad_clip),
            warmup_steps=config.warmup_steps,
            shuffle_rewards=control == "shuffled",
        )

    def solver_grpo(self) -> solver_grpo.SolverGrpo:
        """What trains the Solver GRPO baseline; its rate stays constant, which serves it better."""
        optimizer = meta_step.outer_optimizer(self.config.solver_grpo_lr, self.config.grad_clip)
        return solver_grpo.SolverGrpo(self._surrogate(), optimizer)

    def _surrogate(self) -> objective.Surrogate:
        config = self.config
        level: policy_gradient.RatioLevel = "token" if config.ratio_level == "token" else "sequence"
        return objective.Surrogate(self.solver, config.clip_ratio, config.advantage_eps, level)


def assemble(config: Config, mesh: jax.sharding.Mesh | None = None) -> Parts:
    """Loads the model and builds the parts.

    Args:
        config: the settings.
        mesh: from `runtime.make_mesh`; None is one device. Each process reads its devices' slices of the weights.

    Raises:
        FileNotFoundError, ValueError: model files are missing, damaged or contradict each other; one line that names
            the file and the fix.
    """
    directory = model_directory(config.model)
    llama_config = execution(config, LlamaConfig.from_directory(directory))
    encoder = tokenizer.load(directory)
    tokenizer.check_vocabulary(encoder, llama_config, directory)
    mesh = runtime.make_mesh("auto", jax.devices()[:1]) if mesh is None else mesh
    runtime.check_layout(mesh, llama_config)
    runtime.check_divides(mesh, "tasks", config.tasks_per_step, "--tasks_per_step")
    runtime.check_divides(mesh, "scorer_embed", config.scorer_width, "--scorer_width")
    shapes = jax.eval_shape(lambda key: Llama(llama_config).init(key, jnp.zeros((1, 2), jnp.int32)), jax.random.key(0))
    places = runtime.shardings(mesh, shapes["params"])
    params = weights.load(directory, llama_config, dtype=jnp.dtype(config.base_dtype), shardings=places)
    chosen = open_task(config, directory, encoder)
    end_token = tokenizer.end_token(encoder, llama_config) if chosen.end is None else _token_of(encoder, chosen.end)
    eos = [] if encoder.eos_token_id is None else [encoder.eos_token_id]
    llama_config = llama_config.with_stop_tokens([end_token, *eos])
    dialogue = Dialogue(
        encoder,
        chosen.task,
        config.max_prompt_tokens,
        config.max_generator_prompt_tokens,
        config.max_example_tokens,
        config.max_answer_tokens,
        end_token,
    )
    loop, scorer = models(config, llama_config)
    return Parts(config, chosen, dialogue, loop, scorer, params, directory, runtime.Feed(mesh))


def models(config: Config, llama_config: LlamaConfig) -> tuple[adapt.LoraLoop, Llama]:
    """The inner loop with the solver's model, and the scorer's trunk; a planner needs no more than these."""
    solver = Solver(
        Llama(llama_config),
        "lora" if config.generator == "lora" else "full",
        inner_scale=config.lora_alpha / config.lora_rank,
        inner_blocks=_inner_blocks(config.lora_blocks, llama_config),
    )
    loop = adapt.LoraLoop(
        solver,
        adapt.OPTIMIZERS[config.inner_optimizer](config.inner_lr),
        config.inner_steps,
        config.lora_rank,
        config.lora_targets,
        adapt.ADJOINTS[config.adjoint](),
    )
    return loop, Llama(score.scorer_config(llama_config, config.scorer_layers, config.scorer_width))


def execution(config: Config, llama_config: LlamaConfig) -> LlamaConfig:
    """An architecture with the settings of how to run it."""
    return dataclasses.replace(llama_config, remat=config.remat, loss_chunk=config.loss_chunk)


def _token_of(encoder: Any, text: str) -> int:
    """The one token that a text is.

    Raises:
        ValueError: if it is none or several.
    """
    tokens = encoder(text, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        raise ValueError(f"{text!r} ends a completion of this task, but is {len(tokens)} tokens of the model, not one")
    return int(tokens[0])


def _inner_blocks(asked: int, llama_config: LlamaConfig) -> int:
    blocks = llama_config.num_hidden_layers
    if asked > blocks:
        raise ValueError(f"--lora_blocks={asked} is more than the model's {blocks}; give at most {blocks}, or 0: all")
    return asked % blocks


def model_directory(model: str) -> pathlib.Path:
    """A directory with the model's files: the embedded "tiny", a local one, or a snapshot of a hub id.

    Raises:
        FileNotFoundError: no such directory, and the hub cannot be reached for such an id.
    """
    try:
        return loading.model_directory(model)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--model: {error}") from None
