"""Components of a run, assembled from a `Config`: model, tokenizer, task, problems and inner loop."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import optax
from absl import logging

from mass_jax import runtime, strict_json
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.expression import CUSTOM
from mass_jax.llama import Llama, LlamaConfig, loading, random_weights, tokenizer, weights
from mass_jax.llama.published import PUBLISHED
from mass_jax.method import adapt
from mass_jax.method.generate import Dialogue
from mass_jax.method.models import Weights
from mass_jax.sampling.remote.vllm import Server
from mass_jax.tasks.base import Problems
from mass_jax.tasks.registry import Chosen, open_task
from mass_jax.training import samplers
from mass_jax.training.architecture import check_attention, execution, models
from mass_jax.training.eps_root import auto_eps_root
from mass_jax.training.inner_optimizer import fixed_optimizer, learned_inner
from mass_jax.training.learners import check_outer_optimizers
from mass_jax.training.rollout import Rollouts
from mass_jax.types import Params, Tokenizer


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A model as its files hold it.

    Attributes:
        directory: directory of the files.
        architecture: architecture, with the configured execution: rematerialization, chunks and arithmetic.
        tokenizer: a `transformers.PreTrainedTokenizerFast`.
        params: pretrained parameters, or random ones with --random_weights, on the mesh.
    """

    directory: pathlib.Path
    architecture: LlamaConfig
    tokenizer: Tokenizer
    params: Params


@dataclasses.dataclass(frozen=True)
class Components:
    """Components of a run that trains and evaluates. Learners are built by `mass_jax.training.learners`.

    Attributes:
        config: the settings.
        model: the pretrained model.
        chosen: the task with its problems.
        rollouts: samples and adapts; holds the inner loop and the dialogue.
        scorer: the scorer's trunk.
    """

    config: Config
    model: PretrainedModel
    chosen: Chosen
    rollouts: Rollouts
    scorer: Llama

    def pretrained(self) -> Weights:
        """Returns the pretrained weights, with a fresh generator adapter where one is configured."""
        return self.fresh_weights(jax.random.key(0))  # B = 0, so the key does not matter

    def fresh_weights(self, key: jax.Array) -> Weights:
        """Returns the generator's weights before meta-training.

        With --generator=full they are a copy of the parameters, because training donates its buffers.
        """
        solver = self.rollouts.solver
        if solver.generator == "full":
            return Weights({}, jax.tree.map(jnp.copy, self.model.params))
        rank, targets = self.config.generator_lora_rank, self.config.lora_targets
        return Weights(self.model.params, solver.init_policy(key, rank, targets))

    def problems(self, seed: int) -> Problems:
        """Returns the training and evaluation problems of a meta-training seed."""
        return self.chosen.problems(seed)

    def on_every_process(self) -> "Components":
        """Returns components with which every process handles all problems, as evaluation requires."""
        return dataclasses.replace(self, rollouts=self.rollouts.on_every_process())

    def with_sampler(self, make: samplers.MakeSampler) -> "Components":
        """Returns components that sample with `make(model, tokenizer)`, as --sampler does by name."""
        sampler = samplers.make(make, self.rollouts.solver.model, self.model.tokenizer)
        return dataclasses.replace(self, rollouts=dataclasses.replace(self.rollouts, sampler=sampler))

    def close(self) -> None:
        """Releases the resources of the task, such as worker processes."""
        self.chosen.close()


def assemble(
    config: Config,
    mesh: jax.sharding.Mesh | None = None,
    inner_optimizer: optax.GradientTransformation | None = None,
) -> Components:
    """Loads the model and the task, and builds the components.

    Args:
        config: the settings.
        mesh: from `runtime.make_mesh`; None uses one device. Each process reads its devices' slices of the weights.
        inner_optimizer: optimizer of the inner loop, instead of --inner_optimizer; the settings then name it "custom".

    Raises:
        FileNotFoundError, ValueError: model files are missing, damaged or inconsistent; one line that names the file
            and the fix.
    """
    if config.memory_bytes is not None:
        raise ValueError(
            f"--memory={config.memory} is for experiments.train, evaluate and plan; pass the settings that they print"
        )
    if inner_optimizer is not None:
        config = dataclasses.replace(config, inner_optimizer=CUSTOM)
    mesh = runtime.make_mesh("auto", jax.devices()[:1]) if mesh is None else mesh
    check_attention(config, mesh)
    if inner_optimizer is None:
        fixed_optimizer(config, adapt.DEFAULT_EPS_ROOT)
        learned_inner(config, adapt.DEFAULT_EPS_ROOT)  # names errors before the model is loaded
    check_outer_optimizers(config)
    model = load_pretrained(config, mesh)
    encoder, architecture = model.tokenizer, model.architecture
    chosen = open_task(config, model.directory, encoder)
    end_token = tokenizer.end_token(encoder, architecture) if chosen.end is None else _token_of(encoder, chosen.end)
    eos = [] if encoder.eos_token_id is None else [encoder.eos_token_id]
    dialogue = Dialogue(
        encoder,
        chosen.task,
        config.max_prompt_tokens,
        config.max_generator_prompt_tokens,
        config.max_example_tokens,
        config.max_answer_tokens,
        end_token,
        config.max_target_tokens or None,
    )
    loop, scorer = models(config, architecture.with_stop_tokens([end_token, *eos]), inner_optimizer)
    server = Server(config.sampler_url, config.sampler_timeout, config.sampler_tolerance)
    sampler = samplers.make(config.sampler, loop.solver.model, encoder, server)
    rollouts = Rollouts(loop, dialogue, runtime.Feed(mesh), config.temperature, sampler)
    return with_eps_root(Components(config, model, chosen, rollouts, scorer))


def with_eps_root(components: Components) -> Components:
    """Returns components whose inner optimizer has the eps_root of --inner_eps_root=auto, measured on this model."""
    config, rollouts = components.config, components.rollouts
    if not adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root):
        return components
    problems = components.problems(config.seeds[0]).train
    eps_root = auto_eps_root(
        rollouts,
        components.pretrained() if config.generator == "lora" else Weights({}, components.model.params),  # no copy
        problems,
        config.num_test_examples,
    )
    logging.info("inner_eps_root=auto: %g for %s", eps_root, config.inner_optimizer)
    return _set_eps_root(components, eps_root)


def with_stored_eps_root(components: Components, workdir: pathlib.Path, store: bool = True) -> Components:
    """Returns components with the eps_root of --inner_eps_root=auto that a run started with; stores a new run's.

    A run that resumes on other devices, or is served later, keeps its inner optimizer to the bit.

    Args:
        components: the components of the run.
        workdir: directory of the run, whose settings are those of the components.
        store: whether to write the value of a new run.

    Raises:
        UserError: the stored value is damaged.
    """
    config, path = components.config, workdir / runtime.EPS_ROOT_NAME
    if not adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root):
        return components
    if runtime.holds_results(workdir) and path.exists():
        try:
            return _set_eps_root(components, float(strict_json.loads(path.read_text(encoding="utf-8"))["eps_root"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}); restore it, or choose another --workdir") from error
    if store and runtime.is_first():
        runtime.write_atomically(path, json.dumps({"eps_root": components.rollouts.loop.eps_root}) + "\n")
    return components


def _set_eps_root(components: Components, eps_root: float) -> Components:
    """Returns components with another eps_root of the inner optimizer."""
    config, rollouts = components.config, components.rollouts
    optimizer = fixed_optimizer(config, eps_root)
    learned = learned_inner(config, eps_root)
    loop = dataclasses.replace(rollouts.loop, optimizer=optimizer, eps_root=eps_root, learned=learned)
    return dataclasses.replace(components, rollouts=dataclasses.replace(rollouts, loop=loop))


def load_pretrained(config: Config, mesh: jax.sharding.Mesh) -> PretrainedModel:
    """Loads the configured model onto a mesh, and checks that model and settings fit the mesh.

    Args:
        config: the settings.
        mesh: from `runtime.make_mesh`.

    Raises:
        FileNotFoundError, ValueError: as for `assemble`.
    """
    directory, architecture = _files(config)
    architecture = execution(config, architecture)
    encoder = tokenizer.load(directory)
    tokenizer.check_vocabulary(encoder, architecture, directory)
    runtime.check_layout(mesh, architecture)
    check_tasks(config, mesh)
    runtime.check_divides(mesh, "scorer_embed", config.scorer_width, "--scorer_width")
    shapes = jax.eval_shape(lambda key: Llama(architecture).init(key, jnp.zeros((1, 2), jnp.int32)), jax.random.key(0))
    places = runtime.shardings(mesh, shapes["params"])
    dtype = jnp.dtype(config.base_dtype)
    if config.random_weights:
        params = random_weights.draw(architecture, jax.random.key(config.seeds[0]), dtype, places)
    else:
        params = weights.load(directory, architecture, dtype=dtype, shardings=places)
    return PretrainedModel(directory, architecture, encoder, params)


def _files(config: Config) -> tuple[pathlib.Path, LlamaConfig]:
    """Returns the directory of --model and its architecture.

    With --random_weights, a published name needs no files: the tokenizer is that of the embedded model.
    """
    if config.random_weights and config.model in PUBLISHED and not pathlib.Path(config.model).is_dir():
        return model_directory("tiny"), PUBLISHED[config.model]
    directory = model_directory(config.model)
    return directory, LlamaConfig.from_directory(directory)


def check_tasks(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Checks that a mesh splits the problems of a step, and those of a group of --tasks_at_a_time.

    Raises:
        ValueError: it does not; one line that names the axis and the fix.
    """
    runtime.check_divides(mesh, "tasks", config.tasks_per_step, "--tasks_per_step")
    runtime.check_divides(mesh, "tasks", config.tasks_at_a_time, "--tasks_at_a_time")


def _token_of(encoder: Tokenizer, text: str) -> int:
    """Returns the id of a text that must encode to exactly one token."""
    tokens = encoder(text, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        raise ValueError(
            f"--task ends completions with {text!r}, which is {len(tokens)} tokens of this model, not one; use another "
            f"--model or --task"
        )
    return int(tokens[0])


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
