"""Where a model comes from: a workdir's settings and newest checkpoint, or a model by itself. Changes nothing there."""

import pathlib
from typing import Any, NamedTuple

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method import meta_step
from mass_jax.method.models import Weights
from mass_jax.runtime.checkpoints import abstract_of, check_checkpoint
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.training.components import Parts, assemble

RUNS = ("mass", "mass_gold")


class LoadedModel(NamedTuple):
    """A model ready to adapt, and a line that says which it is."""

    parts: Parts
    weights: Weights
    label: str


def load_model(model: str, run: str | None = None, seed: int | None = None) -> LoadedModel:
    """A workdir's trained generator, or a model as it is.

    Args:
        model: a workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        run: training run of the workdir, or "pretrained"; None takes "mass", else "mass_gold", else the pretrained.
        seed: meta-training seed; None takes the workdir's first.

    Raises:
        UserError: a workdir that lacks what is asked of it, in one line.
    """
    workdir = pathlib.Path(model)
    if not (workdir / "config.json").is_file() or (workdir / "tokenizer.json").is_file():
        if run not in (None, "pretrained"):
            raise UserError(f"--run={run} needs a workdir of experiments.train, and {model!r} is none")
        parts = _assemble(Config(model=model))
        return LoadedModel(parts, parts.pretrained(), f"{model}, pretrained")
    check_checkpoint_path(workdir, saving=False)
    parts = _assemble(_read_config(workdir / "config.json"))
    seed = parts.config.seeds[0] if seed is None else seed
    found = {name: _steps(workdir / f"seed{seed}" / name / "checkpoints") for name in RUNS}
    chosen = run or next((name for name in RUNS if found[name]), "pretrained")
    if chosen == "pretrained":
        return LoadedModel(parts, parts.pretrained(), f"{model}, pretrained")
    if not found.get(chosen):
        trained = ", ".join([*(name for name in RUNS if found[name]), "pretrained"])
        raise UserError(f"--run={chosen}: {workdir}/seed{seed} has no checkpoint of it; there are: {trained}")
    step, weights = _restore(parts, workdir / f"seed{seed}" / chosen / "checkpoints", found[chosen])
    return LoadedModel(parts, weights, f"{model}, {chosen}, seed {seed}, step {step}")


def _assemble(config: Config) -> Parts:
    try:
        return assemble(config)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _read_config(path: pathlib.Path) -> Config:
    try:
        return Config.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} holds no settings of a run ({error}); give a workdir of experiments.train") from None


def _steps(directory: pathlib.Path) -> list[int]:
    """Steps that have a checkpoint, newest first."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _restore(parts: Parts, directory: pathlib.Path, steps: list[int]) -> tuple[int, Weights]:
    """Loads the newest sound checkpoint; the directory may be another process's, so nothing is repaired in it."""
    start = parts.fresh_weights(jax.random.key(0))
    learner = parts.learner("verifier")
    template = meta_step.init_state(jax.random.key(0), learner, start.policy)
    abstract: Any = jax.tree.map(abstract_of, jax.device_put(template, jax.devices()[0]))
    reason = ""
    for step in steps:
        path = directory.absolute() / str(step)
        try:
            check_checkpoint(path)
            state = ocp.load(path, abstract, checkpointable_name="state")
            return step, Weights(start.base, state.policy)
        except Exception as error:  # orbax and tensorstore have no common error for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            logging.warning("checkpoint %s cannot be used (%s)", path, reason)
    raise UserError(f"no checkpoint in {directory} can be read ({reason}); train anew, or give --run=pretrained")
