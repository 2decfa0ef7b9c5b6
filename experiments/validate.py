"""Checks whether rewards predict the effect of examples, for one or several inner optimizers.

    python -m experiments.validate --preset=tiny --workdir=runs/signal
    python -m experiments.validate --settings="sgd:0.2;adam:0.03:1e-8;adam:0.1:1e-2" --workdir=runs/signal
    python -m experiments.validate --trained=runs/tiny --workdir=runs/signal_trained

Writes examples for training problems with the pretrained generator, or with the one of a training run, and compares
the reward of each example with what happens if it is left out, used alone, or weighted slightly more. A setting is
OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; without --settings, the one of the other flags is measured. WORKDIR gets
validate.json after each setting, validate.md, and the figure validate.png (also as SVG). Rerun the same command to
resume.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags, logging

from experiments import comparison, settings
from experiments.path_flags import DEFINE_path
from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.config import Config, names_code, nearest
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.method import adapt
from mass_jax.method.rewards import make_reward
from mass_jax.serving import source, stored
from mass_jax.tasks.base import Example, Problem
from mass_jax.training import half_right, inner_setting, signal_page, validation
from mass_jax.training.components import assemble
from mass_jax.training.eps_root import auto_eps_root

FLAGS = flags.FLAGS
REPLACED = ("inner_optimizer", "inner_lr", "inner_eps_root", "inner_steps")  # by --settings
MEASURES = ("add_one", "finite_difference", "metasmoothness", "precision")


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(validate)


def validate(stop: runtime.Stop) -> None:
    """Checks the flags, measures the settings that are not in the workdir yet, and writes the results."""
    with contextlib.ExitStack() as held:
        try:
            config = read_config(held)
            texts = comparison.read_settings(config)
            devices = None if FLAGS.trained is None else jax.devices()[:1]
            opened = settings.workdir_and_mesh(held, config, "runs/signal", stop, devices)
            if opened is None:
                return
            workdir, mesh = opened
            model = load(held, config, mesh)
            auto = functools.cache(lambda: auto_of(held, model, config))
            chosen = to_measure(texts, config, model, auto)
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        sides = model.chosen.problems(FLAGS.seed)
        problems = sides.train[: FLAGS.problems]
        header = header_of(model, len(problems))
        reports = read_reports(workdir / "validate.json", header)
        wanted = [setting for setting in chosen if setting.label not in reports]
        if len(wanted) < len(chosen):
            logging.info("%d of %d settings are already in validate.json", len(chosen) - len(wanted), len(chosen))
        if wanted:
            drawn = draw(model, problems, sides.oracle)
        for number, setting in enumerate(wanted, 1):
            stop.poll()
            logging.info("setting %d of %d: %s", number, len(wanted), setting.label)
            reports[setting.label] = validation.validate_setting(
                model.rollouts,
                model.weights,
                drawn,
                setting,
                header["outer"],
                config.num_attempts,
                options(),
                reward=make_reward(config.reward, config.path_points),
            )
            write_reports(workdir, header, reports)
        write_reports(workdir, header, reports)
        if runtime.is_first():
            print((workdir / "validate.md").read_text(encoding="utf-8"))


def draw(
    model: source.LoadedModel, problems: Sequence[Problem], oracle: Callable[[Problem, int], list[Example]] | None
) -> validation.Drawn:
    """Writes the examples, or draws the ones of --half_right."""
    count, key = model.config.num_examples, jax.random.fold_in(jax.random.key(FLAGS.seed), 5)
    common: dict[str, Any] = {"num_examples": count, "key": key, "score": FLAGS.score}
    if not FLAGS.half_right:
        return validation.draw(model.rollouts, model.weights, problems, **common)
    if oracle is None:
        raise UserError(f"--task={model.config.task} has no correct examples; leave out --half_right")
    return half_right.draw(model.rollouts, model.weights, problems, oracle, **common)


def read_config(held: contextlib.ExitStack) -> Config:
    """Checks this command's flags, and returns the settings of the other flags or of the training run --trained."""
    if unknown := [name for name in FLAGS.measures if name not in MEASURES]:
        raise ValueError(f"--measures={unknown[0]!r} is unknown; {nearest(unknown[0], MEASURES)}")
    if FLAGS.trained is None:
        if FLAGS.train_seed is not None:
            raise ValueError(f"--train_seed={FLAGS.train_seed} needs --trained, the workdir of a training run")
        return settings.read()
    workdir = trained(held)
    try:
        config = stored.parse((workdir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"--trained={FLAGS.trained} is not a workdir of experiments.train ({error})") from None
    given = own_code()["inner_optimizer"]
    return stored.trusted_optimizers(config, workdir, None if given is None else stored.given_optimizer(given))


@functools.cache
def _copy_of(given: str, local: str | None, held: contextlib.ExitStack) -> pathlib.Path:
    return held.enter_context(runtime.read_workdir(given, local, "trained"))


def trained(held: contextlib.ExitStack) -> pathlib.Path:
    """Returns the local directory of --trained, which may be a URL; `held` holds its lock."""
    return _copy_of(FLAGS.trained, FLAGS.local_trained, held)


def own_code() -> dict[str, Any]:
    """Returns what names again code that the settings of --trained name, as arguments of `source.load_model`."""
    task = FLAGS.task if names_code(FLAGS.task) else None
    return {"own_task": task, "inner_optimizer": FLAGS.inner_optimizer if FLAGS["inner_optimizer"].present else None}


def load(held: contextlib.ExitStack, config: Config, mesh: Any) -> source.LoadedModel:
    """Loads the model of the flags, or of the training run --trained."""
    if FLAGS.trained is None:
        parts = assemble(config, mesh)
        model = source.LoadedModel(
            config, parts.model.directory, parts.chosen, parts.rollouts, parts.pretrained(), "pretrained"
        )
    else:
        local = str(trained(held))
        model = source.load_model(local, FLAGS.run, FLAGS.train_seed, **own_code())
        # A rerun compares the label, which must not depend on where a URL's files are.
        model = model._replace(label=model.label.replace(local, FLAGS.trained, 1))
    held.enter_context(contextlib.closing(model.chosen))
    if FLAGS.trained is not None and FLAGS.run != "pretrained" and is_pretrained(model):
        seed = config.seeds[0] if FLAGS.train_seed is None else FLAGS.train_seed
        raise ValueError(
            f"--trained={FLAGS.trained} has no trained generator of seed {seed}; train it, give another --train_seed, "
            f"or measure the pretrained one with --run=pretrained"
        )
    return model


def is_pretrained(model: source.LoadedModel) -> bool:
    """Returns whether a model has the weights before meta-training."""
    return model.label.split(", ")[-1] == "pretrained"


def auto_of(held: contextlib.ExitStack, model: source.LoadedModel, config: Config) -> float:
    """Returns the eps_root of auto as in training: with pretrained weights, on problems of the run's first seed."""
    if adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root):
        return model.rollouts.loop.eps_root  # measured when the model was loaded, or stored by the training run
    with contextlib.ExitStack() as opened:
        if not is_pretrained(model):
            model = source.load_model(str(trained(held)), "pretrained", **own_code())
            opened.enter_context(contextlib.closing(model.chosen))
        problems = model.chosen.problems(config.seeds[0]).train
        return auto_eps_root(model.rollouts, model.weights, problems, config.num_test_examples)


def to_measure(
    texts: Sequence[str], config: Config, model: source.LoadedModel, auto: Callable[[], float]
) -> list[inner_setting.InnerSetting]:
    """Returns the settings of --settings; without, that of the model, with the values that training learned."""
    given = [inner_setting.parse_setting(text, config, auto) for text in texts]
    return given or [inner_setting.InnerSetting.of(model.config, model.rollouts.loop)]


def header_of(model: source.LoadedModel, problems: int) -> dict[str, Any]:
    """Returns what a measurement depends on besides the inner optimizer."""
    config = model.config
    others = {name: value for name, value in json.loads(config.to_json()).items() if name not in REPLACED}
    return {
        "model": config.model,
        "task": config.task,
        "generator": model.label,
        "problems": problems,
        "examples": config.num_examples,
        "outer": "gold" if config.outer == "both" else config.outer,
        "score": FLAGS.score,
        "seed": FLAGS.seed,
        "measures": sorted(FLAGS.measures),
        "config": others,
    } | ({"half_right": True} if FLAGS.half_right else {})


def options() -> signal.Options:
    """Returns what --measures names."""
    return signal.Options(
        finite_differences="finite_difference" in FLAGS.measures,
        add_one="add_one" in FLAGS.measures,
        directions=4 if "metasmoothness" in FLAGS.measures else 0,
        precision="precision" in FLAGS.measures,
    )


def read_reports(path: pathlib.Path, header: dict[str, Any]) -> dict[str, mg.SignalReport]:
    """Returns the reports of an earlier run of the same measurement, by label; see `comparison.read`."""
    return comparison.read(path, header, lambda row: mg.SignalReport.from_json(json.dumps(row)))


def write_reports(workdir: pathlib.Path, header: dict[str, Any], reports: dict[str, mg.SignalReport]) -> None:
    """Writes the reports, the table and the figure."""
    if not runtime.is_first():
        return
    rows = {label: json.loads(report.to_json()) for label, report in reports.items()}
    comparison.write(workdir / "validate.json", header, rows)
    runtime.write_atomically(workdir / "validate.md", signal_page.table(header, reports))
    signal_page.figure(header, reports, workdir / "validate.png")


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    comparison.define()
    flags.adopt_module_key_flags(comparison)  # list them in --help
    DEFINE_path(
        "trained", None, "Workdir of experiments.train whose generator writes the examples; its settings apply."
    )
    DEFINE_path(
        "local_trained",
        None,
        "With a URL as --trained: local directory of its files; by default in the user's cache directory.",
    )
    flags.DEFINE_string("run", None, "Training run of --trained: mass, mass_gold or pretrained; default: the first.")
    flags.DEFINE_integer("train_seed", None, "Meta-training seed of --trained; default: the run's first.")
    flags.DEFINE_bool(
        "half_right",
        False,
        "Measure on correct examples of the task, every second one with the answer of another, instead of examples "
        "that the model writes; the AUC then says whether rewards tell correct examples from wrong ones.",
    )
    names = ", ".join(MEASURES)
    flags.DEFINE_list(
        "measures", list(MEASURES), f"What to measure besides leave-one-out. Any of: {names}; or nothing."
    )


if __name__ == "__main__":
    define()
    settings.run(main)
