"""Loads a model from a workdir's newest checkpoint or from Hugging Face files; writes nothing there."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import optax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax import strict_json
from mass_jax.config import Config, names_code
from mass_jax.errors import UserError, first_line
from mass_jax.method import learning, meta_step
from mass_jax.method.models import Weights
from mass_jax.own_function import CodeNotNamed
from mass_jax.runtime.checkpoints import abstract_of, check_checkpoint
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.tasks.registry import Chosen
from mass_jax.training import samplers
from mass_jax.training.components import Components, assemble, with_stored_eps_root
from mass_jax.training.inner_optimizer import fixed_optimizer
from mass_jax.training.learners import mass_learner
from mass_jax.training.rollout import Rollouts

RUNS = ("mass", "mass_gold")


class LoadedModel(NamedTuple):
    """A model ready to adapt.

    Attributes:
        config: the settings.
        directory: directory of the model files.
        chosen: the model's own task with its problems; close it when done.
        rollouts: samples and adapts.
        weights: base weights and trained parameters.
        label: one-line description.
    """

    config: Config
    directory: pathlib.Path
    chosen: Chosen
    rollouts: Rollouts
    weights: Weights
    label: str


def load_model(
    model: str,
    run: str | None = None,
    seed: int | None = None,
    sampler: str = samplers.NATIVE,
    inner_optimizer: optax.GradientTransformation | None = None,
    own_task: str | None = None,
    sampler_url: str | None = None,
    sampler_timeout: float | None = None,
    sampler_tolerance: float | None = None,
) -> LoadedModel:
    """Loads a workdir's trained generator, or a pretrained model.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run: training run of the workdir, or "pretrained". The default is the first that exists of "mass", "mass_gold"
            and "pretrained".
        seed: meta-training seed; the default is the workdir's first.
        sampler: sampler of all completions; see `training.samplers.make`. That of a workdir's settings is ignored,
            because it names code to run.
        inner_optimizer: optimizer of the inner loop, for a workdir that was trained with one of your own code.
        own_task: the model's own task, module:function or file.py:function. A workdir whose settings name one needs it
            again, because settings run no code; the default of other models is that of their settings.
        sampler_url: address of the server for "vllm"; None is the default of --sampler_url, not that of a workdir's
            settings, which may be somebody else's.
        sampler_timeout: seconds that a request of the server may take; None is the value in the settings.
        sampler_tolerance: largest difference from the model in the server's start-up probe; None likewise.

    Raises:
        UserError: the workdir lacks the requested run, its checkpoints cannot be read, there is no such sampler or
            task, or the settings name an optimizer or a task of somebody's own code, and `own_task` is missing.
    """
    own_task = None if own_task is None else Config(task=own_task).located().task
    url = Config.sampler_url if sampler_url is None else sampler_url
    workdir = pathlib.Path(model)
    if not (workdir / "config.json").is_file() or (workdir / "tokenizer.json").is_file():
        if run not in (None, "pretrained"):
            raise UserError(f"--run={run} needs a workdir of experiments.train, which {model!r} is not")
        config = Config(model=model, sampler=sampler, sampler_url=url)
        config = _limited(config, sampler_timeout, sampler_tolerance)
        config = config if own_task is None else dataclasses.replace(config, task=own_task)
        return _loaded(_assemble(config), None, f"{model}, pretrained")
    check_checkpoint_path(workdir, saving=False)
    config = _read_config(workdir / "config.json", inner_optimizer is not None)
    if config.sampler != sampler:
        logging.info("sampling with --sampler=%s; the run was trained with --sampler=%s", sampler, config.sampler)
    task = _trusted_task(config.task, own_task, workdir)
    config = _runnable(dataclasses.replace(config, sampler=sampler, sampler_url=url, task=task))
    config = _limited(config, sampler_timeout, sampler_tolerance)
    components = with_stored_eps_root(_assemble(config, inner_optimizer), workdir, store=False)
    seed = components.config.seeds[0] if seed is None else seed
    found = {name: _steps(workdir / f"seed{seed}" / name / "checkpoints") for name in RUNS}
    chosen = run or next((name for name in RUNS if found[name]), "pretrained")
    if chosen == "pretrained":
        return _loaded(components, None, f"{model}, pretrained")
    if not found.get(chosen):
        trained = ", ".join([*(name for name in RUNS if found[name]), "pretrained"])
        raise UserError(f"--run={chosen}: {workdir}/seed{seed} has no such checkpoint; available: {trained}")
    step, weights = _restore(components, workdir / f"seed{seed}" / chosen / "checkpoints", found[chosen])
    return _loaded(*_frozen(components, weights), f"{model}, {chosen}, seed {seed}, step {step}")


def _frozen(components: Components, weights: Weights) -> tuple[Components, Weights]:
    """Replaces learned hyperparameters of the inner optimizer by their values, which settings then name."""
    rollouts, learned = components.rollouts, components.rollouts.loop.learned
    if learned is None or weights.inner is None:
        return components, weights
    config = learned.frozen(components.config, weights.inner)
    eps_root = rollouts.loop.eps_root if config.given_eps_root is None else config.given_eps_root
    loop = dataclasses.replace(
        rollouts.loop, optimizer=fixed_optimizer(config, eps_root), eps_root=eps_root, learned=None
    )
    changed = dataclasses.replace(components, config=config, rollouts=dataclasses.replace(rollouts, loop=loop))
    return changed, weights._replace(inner=None)


def _loaded(components: Components, weights: Weights | None, label: str) -> LoadedModel:
    """What serving needs of a run's components; without weights, the pretrained ones."""
    weights = components.pretrained() if weights is None else weights
    config, directory = components.config, components.model.directory
    if config.given_eps_root is None:  # the identity of an update names the value, not auto
        config = dataclasses.replace(config, inner_eps_root=repr(components.rollouts.loop.eps_root))
    return LoadedModel(config, directory, components.chosen, components.rollouts, weights, label)


def _trusted_task(stored: str, given: str | None, workdir: pathlib.Path) -> str:
    """Returns the task to open: the stored one, or that of the command line if the stored one names code."""
    if given is None:
        if names_code(stored):
            raise UserError(f"the settings in {workdir} name code to run; pass --task={stored} if you trust it")
        return stored
    if given != stored:
        if not names_code(stored) or not names_code(given):
            raise UserError(f"--task={given}: the run in {workdir} has --task={stored}; omit the flag, or pass that")
        logging.warning("opening --task=%s; the run was trained with --task=%s", given, stored)
    return given


def _assemble(config: Config, inner_optimizer: optax.GradientTransformation | None = None) -> Components:
    try:
        return assemble(config, inner_optimizer=inner_optimizer)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _limited(config: Config, timeout: float | None, tolerance: float | None) -> Config:
    """Replaces the limits of a server that are given."""
    timeout = config.sampler_timeout if timeout is None else timeout
    tolerance = config.sampler_tolerance if tolerance is None else tolerance
    try:
        return dataclasses.replace(config, sampler_timeout=timeout, sampler_tolerance=tolerance)
    except ValueError as error:
        raise UserError(str(error)) from None


def _runnable(config: Config) -> Config:
    """Replaces attention kernels, which a CPU cannot run, by another implementation of the same attention."""
    if config.attention != "kernel" or jax.default_backend() != "cpu":
        return config
    logging.info("computing attention with --attention=auto; the run was trained with --attention=kernel")
    return dataclasses.replace(config, attention="auto")


def _read_config(path: pathlib.Path, replaced: bool) -> Config:
    """Reads the settings of a run; its inner optimizer may be code only if it will be replaced."""
    try:
        settings = path.read_text(encoding="utf-8")
        named = strict_json.loads(settings).get("inner_optimizer") if replaced else None
        return Config.from_json(settings, () if named is None else (named,))
    except CodeNotNamed as error:
        raise UserError(f"{path}: {error}, in Python as load_model(..., inner_optimizer=...)") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the settings of a run ({error}); give a workdir of experiments.train") from None


def _steps(directory: pathlib.Path) -> list[int]:
    """Steps with a checkpoint, newest first."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _restore(components: Components, directory: pathlib.Path, steps: list[int]) -> tuple[int, Weights]:
    """Loads the newest intact checkpoint; repairs nothing, since another process may own the directory."""
    start = components.fresh_weights(jax.random.key(0))
    learner = mass_learner(components.config, components.rollouts.loop, components.scorer, "verifier")
    template = meta_step.init_state(jax.random.key(0), learner, start.policy)
    abstract: Any = jax.tree.map(abstract_of, jax.device_put(template, jax.devices()[0]))
    reason = ""
    for step in steps:
        path = directory.absolute() / str(step)
        try:
            check_checkpoint(path)
            state = ocp.load(path, abstract, checkpointable_name="state")
            return step, learning.weights_of(start.base, state)
        except Exception as error:  # orbax and tensorstore have no common error for damaged files
            reason = first_line(error)[:200]
            logging.warning("checkpoint %s cannot be used (%s)", path, reason)
    raise UserError(f"no checkpoint in {directory} can be read ({reason}); train again, or give --run=pretrained")
