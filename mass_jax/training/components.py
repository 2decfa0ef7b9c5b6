"""Components of a run, assembled from a `Config`: model, tokenizer, task, problems and inner loop."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.llama import Llama, LlamaConfig, loading, lora, tokenizer, weights
from mass_jax.method import adapt, score
from mass_jax.method.generate import Dialogue
from mass_jax.method.models import Solver, Weights
from mass_jax.tasks.base import Problems
from mass_jax.tasks.registry import Chosen, open_task
from mass_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Components:
    """Components shared by training, evaluation and serving. Learners are built by `mass_jax.training.learners`.

    Attributes:
        config: the settings.
        chosen: the task with its problems.
        dialogue: encodes prompts, decodes and parses samples.
        loop: inner loop, with the solver and the adjoint.
        scorer: the scorer's trunk.
        params: pretrained parameters.
        directory: directory of the model files.
        feed: moves the problems of this process to the mesh and back.
    """

    config: Config
    chosen: Chosen
    dialogue: Dialogue
    loop: adapt.LoraLoop
    scorer: Llama
    params: Params
    directory: pathlib.Path
    feed: runtime.Feed

    @property
    def solver(self) -> Solver:
        """The language model."""
        return self.loop.solver

    def pretrained(self) -> Weights:
        """Returns the pretrained weights, with a fresh generator adapter where one is configured."""
        return self.fresh_weights(jax.random.key(0))  # B = 0, so the key does not matter

    def fresh_weights(self, key: jax.Array) -> Weights:
        """Returns the generator's weights before meta-training.

        With --generator=full they are a copy of the parameters, because training donates its buffers.
        """
        if self.solver.generator == "full":
            return Weights({}, jax.tree.map(jnp.copy, self.params))
        rank, targets = self.config.generator_lora_rank, self.config.lora_targets
        return Weights(self.params, lora.init(key, self.solver.config, rank, targets))

    def problems(self, seed: int) -> Problems:
        """Returns the training and evaluation problems of a meta-training seed."""
        return self.chosen.problems(seed)

    def on_every_process(self) -> "Components":
        """Returns components with which every process handles all problems, as evaluation requires."""
        return dataclasses.replace(self, feed=dataclasses.replace(self.feed, whole=True))

    def close(self) -> None:
        """Releases the resources of the task, such as worker processes."""
        self.chosen.close()


def assemble(config: Config, mesh: jax.sharding.Mesh | None = None) -> Components:
    """Loads the model and the task, and builds the components.

    Args:
        config: the settings.
        mesh: from `runtime.make_mesh`; None uses one device. Each process reads its devices' slices of the weights.

    Raises:
        FileNotFoundError, ValueError: model files are missing, damaged or inconsistent; one line that names the file
            and the fix.
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
    return Components(config, chosen, dialogue, loop, scorer, params, directory, runtime.Feed(mesh))


def models(config: Config, llama_config: LlamaConfig) -> tuple[adapt.LoraLoop, Llama]:
    """Returns the inner loop with the solver, and the scorer's trunk, without loading any weights."""
    solver = Solver(
        Llama(llama_config),
        "lora" if config.generator == "lora" else "full",
        inner_scale=config.lora_alpha / config.lora_rank,
        inner_blocks=_inner_blocks(config.lora_blocks, llama_config),
    )
    loop = adapt.LoraLoop(
        solver,
        adapt.inner_optimizer(config.inner_optimizer, config.inner_lr, config.inner_eps_root),
        config.inner_steps,
        config.lora_rank,
        config.lora_targets,
        adapt.ADJOINTS[config.adjoint](),
    )
    return loop, Llama(score.scorer_config(llama_config, config.scorer_layers, config.scorer_width))


def execution(config: Config, llama_config: LlamaConfig) -> LlamaConfig:
    """Returns an architecture with the configured rematerialization and loss chunks."""
    return dataclasses.replace(llama_config, remat=config.remat, loss_chunk=config.loss_chunk)


def _token_of(encoder: Any, text: str) -> int:
    """Returns the id of a text that must encode to exactly one token."""
    tokens = encoder(text, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        raise ValueError(f"{text!r} ends a completion of this task, but is {len(tokens)} tokens of the model, not one")
    return int(tokens[0])


def _inner_blocks(requested: int, llama_config: LlamaConfig) -> int:
    """Returns how many last blocks carry inner adapters, where 0 stands for all."""
    blocks = llama_config.num_hidden_layers
    if requested > blocks:
        raise ValueError(
            f"--lora_blocks={requested} is more than the model's {blocks}; give at most {blocks}, or 0: all"
        )
    return requested % blocks


def model_directory(model: str) -> pathlib.Path:
    """Returns the directory with a model's files.

    Args:
        model: "tiny" (embedded), a local directory, or a hub id whose snapshot is downloaded.

    Raises:
        FileNotFoundError: there is no such directory, and the hub has no such id or cannot be reached.
    """
    try:
        return loading.model_directory(model)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--model: {error}") from None
