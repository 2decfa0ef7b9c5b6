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
import json
import pathlib
from typing import Any

import jax
from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.serving import source
from mass_jax.training import signal_page, validation
from mass_jax.training.components import assemble
from mass_jax.training.eps_root import auto_eps_root

FLAGS = flags.FLAGS
MEASURES = ("add_one", "finite_difference", "metasmoothness", "precision")


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(validate)


def validate(stop: runtime.Stop) -> None:
    """Checks the flags, measures the settings that are not in the workdir yet, and writes the results."""
    with contextlib.ExitStack() as held:
        try:
            if FLAGS.workdir is None:
                raise ValueError("--workdir is missing; pass a directory, such as --workdir=runs/signal")
            if unknown := [name for name in FLAGS.measures if name not in MEASURES]:
                raise ValueError(f"--measures={unknown[0]!r} is unknown; {nearest(unknown[0], MEASURES)}")
            model = load(held)
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        config, workdir = model.config, pathlib.Path(FLAGS.workdir)
        train = model.chosen.problems(FLAGS.seed).train
        problems, auto = train[: FLAGS.problems], config.given_eps_root
        if auto is None:
            auto = auto_eps_root(model.rollouts, model.weights, train, config.num_test_examples)
        chosen = [validation.parse_setting(text, config, auto) for text in FLAGS.settings.split(";") if text.strip()]
        chosen = chosen or [validation.InnerSetting.of(config, model.rollouts.loop)]
        header = {
            "model": config.model,
            "task": config.task,
            "generator": model.label,
            "problems": len(problems),
            "examples": config.num_examples,
            "outer": "gold" if config.outer == "both" else config.outer,
            "score": FLAGS.score,
            "seed": FLAGS.seed,
            "measures": sorted(FLAGS.measures),
        }
        reports = read_reports(workdir / "validate.json", header)
        key = jax.random.fold_in(jax.random.key(FLAGS.seed), 5)
        drawn = validation.draw(
            model.rollouts, model.weights, problems, num_examples=config.num_examples, key=key, score=FLAGS.score
        )
        for number, setting in enumerate(chosen, 1):
            stop.poll()
            if setting.label in reports:
                logging.info("setting %d of %d: %s is already in validate.json", number, len(chosen), setting.label)
                continue
            logging.info("setting %d of %d: %s", number, len(chosen), setting.label)
            reports[setting.label] = validation.validate_setting(
                model.rollouts, model.weights, drawn, setting, header["outer"], config.num_attempts, options()
            )
            write_reports(workdir, header, reports)
        write_reports(workdir, header, reports)
        print((workdir / "validate.md").read_text(encoding="utf-8"))


def load(held: contextlib.ExitStack) -> source.LoadedModel:
    """Loads the model of the flags, or of the training run --trained."""
    if FLAGS.trained is None:
        mesh = runtime.make_mesh(FLAGS.mesh)
        held.enter_context(runtime.use_mesh(mesh))
        parts = assemble(settings.read(), mesh)
        model = source.LoadedModel(
            parts.config, parts.model.directory, parts.chosen, parts.rollouts, parts.pretrained(), "pretrained"
        )
    else:
        model = source.load_model(FLAGS.trained, FLAGS.run, FLAGS.seed)
    held.enter_context(contextlib.closing(model.chosen))
    return model


def options() -> signal.Options:
    """Returns what --measures names."""
    return signal.Options(
        finite_differences="finite_difference" in FLAGS.measures,
        add_one="add_one" in FLAGS.measures,
        directions=4 if "metasmoothness" in FLAGS.measures else 0,
        precision="precision" in FLAGS.measures,
    )


def read_reports(path: pathlib.Path, header: dict[str, Any]) -> dict[str, mg.SignalReport]:
    """Returns the reports of an earlier run of the same measurement, by label.

    Raises:
        UserError: the file belongs to another measurement or is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        reports = {label: mg.SignalReport.from_json(json.dumps(row)) for label, row in found.pop("settings").items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; remove it, or give another --workdir") from None
    if found != header:
        raise UserError(f"{path} was measured with {found}, not {header}; give another --workdir")
    return reports


def write_reports(workdir: pathlib.Path, header: dict[str, Any], reports: dict[str, mg.SignalReport]) -> None:
    """Writes the reports, the table and the figure."""
    rows = {label: json.loads(report.to_json()) for label, report in reports.items()}
    text = json.dumps(header | {"settings": rows}) + "\n"
    runtime.write_atomically(workdir / "validate.json", text)
    runtime.write_atomically(workdir / "validate.md", signal_page.table(header, reports))
    signal_page.figure(header, reports, workdir / "validate.png")


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    settings.define()
    settings.define_mesh()
    DEFINE_path("workdir", None, "Directory for the results; rerun with the same directory to resume.")
    DEFINE_path(
        "trained", None, "Workdir of experiments.train whose generator writes the examples; its settings apply."
    )
    flags.DEFINE_string("run", None, "Training run of --trained: mass, mass_gold or pretrained; default: the first.")
    flags.DEFINE_string(
        "settings", "", "Inner optimizers to compare, separated by semicolons: OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]."
    )
    flags.DEFINE_integer("problems", 16, "Number of training problems.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed of the problems, the examples and the adapters.")
    flags.DEFINE_float("score", 0.5, "Weight of every accepted example in the inner loss.", lower_bound=0)
    names = ", ".join(MEASURES)
    flags.DEFINE_list(
        "measures", list(MEASURES), f"What to measure besides leave-one-out. Any of: {names}; or nothing."
    )


if __name__ == "__main__":
    define()
    settings.run(main)
