"""Loads a model from a workdir's newest checkpoint or from Hugging Face files; writes nothing there."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import optax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.config import Config
from mass_jax.errors import UserError, first_line
from mass_jax.expression import CUSTOM
from mass_jax.method.models import Weights
from mass_jax.runtime.checkpoints import abstract_of, check_checkpoint
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.serving import stored
from mass_jax.tasks.registry import Chosen
from mass_jax.training import samplers
from mass_jax.training.components import Components, assemble, with_stored_eps_root
from mass_jax.training.inner_optimizer import fixed_optimizer
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
    inner_optimizer: optax.GradientTransformation | str | None = None,
    own_task: str | None = None,
    sampler_url: str | None = None,
    sampler_timeout: float | None = None,
    sampler_tolerance: float | None = None,
    adapts: bool = True,
) -> LoadedModel:
    """Loads a workdir's trained generator, or a pretrained model.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run: training run of the workdir, or "pretrained". The default is the first that exists of "mass", "mass_gold"
            and "pretrained".
        seed: meta-training seed; the default is the workdir's first.
        sampler: sampler of all completions; see `training.samplers.make`. That of a workdir's settings is ignored,
            because it names code to run.
        inner_optimizer: optimizer of the inner loop, for a workdir that was trained with one of your own code: the
            optimizer, or its expression, such as file.py:function. A workdir whose settings name one needs it again,
            because settings run no code; the default of other models is that of their settings.
        own_task: the model's own task, module:function or file.py:function. A workdir whose settings name one needs it
            again, because settings run no code; the default of other models is that of their settings.
        sampler_url: address of the server for "vllm"; None is the default of --sampler_url, not that of a workdir's
            settings, which may be somebody else's.
        sampler_timeout: seconds that a request of the server may take; None is the value in the settings.
        sampler_tolerance: largest difference from the model in the server's start-up probe; None likewise.
        adapts: False if only the generator is needed; `inner_optimizer` is then not, and is ignored.

    Raises:
        UserError: the workdir lacks the requested run, its checkpoints cannot be read, there is no such sampler or
            task, or the settings name an optimizer or a task of somebody's own code that was not named again.
    """
    own_task = None if own_task is None else Config(task=own_task).located().task
    optimizer, named = _given_optimizer(inner_optimizer if adapts else None)
    url = Config.sampler_url if sampler_url is None else sampler_url
    workdir = pathlib.Path(model)
    if not (workdir / "config.json").is_file() or (workdir / "tokenizer.json").is_file():
        if run not in (None, "pretrained"):
            raise UserError(f"--run={run} needs a workdir of experiments.train, which {model!r} is not")
        config = Config(model=model, sampler=sampler, sampler_url=url)
        config = _limited(config, sampler_timeout, sampler_tolerance)
        config = config if own_task is None else dataclasses.replace(config, task=own_task)
        config = config if named is None else dataclasses.replace(config, inner_optimizer=named)
        return _loaded(_assemble(config, optimizer), None, f"{model}, pretrained")
    check_checkpoint_path(workdir, saving=False)
    config = stored.trusted_optimizers(_read_config(workdir / "config.json"), workdir, named, adapts)
    if config.sampler != sampler:
        logging.info("sampling with --sampler=%s; the run was trained with --sampler=%s", sampler, config.sampler)
    task = stored.trusted_task(config.task, own_task, workdir)
    config = _runnable(dataclasses.replace(config, sampler=sampler, sampler_url=url, task=task))
    config = _limited(config, sampler_timeout, sampler_tolerance)
    components = with_stored_eps_root(_assemble(config, optimizer), workdir, store=False)
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


def _given_optimizer(
    given: optax.GradientTransformation | str | None,
) -> tuple[optax.GradientTransformation | None, str | None]:
    """Returns the inner optimizer that a caller has, and what settings name it."""
    if given is None or isinstance(given, str):
        return None, None if given is None else stored.given_optimizer(given)
    return given, CUSTOM


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


def _read_config(path: pathlib.Path) -> Config:
    """Reads the settings of a run, whose optimizers may be somebody's code."""
    try:
        return stored.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the settings of a run ({error}); give a workdir of experiments.train") from None


def _steps(directory: pathlib.Path) -> list[int]:
    """Steps with a checkpoint, newest first."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _restore(components: Components, directory: pathlib.Path, steps: list[int]) -> tuple[int, Weights]:
    """Loads the newest intact checkpoint; repairs nothing, since another process may own the directory."""
    start = components.fresh_weights(jax.random.key(0))
    learned = components.rollouts.loop.learned
    wanted = {"policy": start.policy} | ({} if learned is None else {"inner": learned.start()})
    abstract: Any = jax.tree.map(abstract_of, jax.device_put(wanted, jax.devices()[0]))
    reason = ""
    for step in steps:
        path = directory.absolute() / str(step)
        try:
            check_checkpoint(path)
            state = _read_state(path, abstract)
            return step, Weights(start.base, state["policy"], state.get("inner"))
        except Exception as error:  # orbax and tensorstore have no common error for damaged files
            reason = first_line(error)[:200]
            logging.warning("checkpoint %s cannot be used (%s)", path, reason)
    raise UserError(f"no checkpoint in {directory} can be read ({reason}); train again, or give --run=pretrained")


def _read_state(path: pathlib.Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Reads some entries of a state; the others need the optimizers of meta-training to know their structure."""
    saved: Any = ocp.metadata(path, checkpointable_name="state").metadata
    rest = jax.tree.map(lambda _: ocp.PLACEHOLDER, saved)
    state = ocp.load(path, rest | wanted, checkpointable_name="state")
    return {name: state[name] for name in wanted}
