"""Compares cheaper estimators of the meta-gradient with the exact one, for one or several inner optimizers.

    python -m experiments.estimators --preset=tiny --workdir=runs/estimators
    python -m experiments.estimators --settings="sgd:0.2;adam:0.03:auto;sgd:0.2::8" \\
        --estimators=first_order,truncated:1,truncated:4,t1t2,sama,evolution:16 --workdir=runs/estimators
    python -m experiments.estimators --preset=smollm2 --model=models/smollm2 --problems=4 --workdir=runs/estimators_lm

Writes examples for training problems with the pretrained generator, and measures for each estimator the time, the
compiled temporaries, the cosine to the exact meta-gradient, and the correlation of the reward with the effect of
leaving an example out. The outer loss is that of gold solutions. A setting is OPTIMIZER:RATE[:EPS_ROOT[:STEPS]];
without --settings, the one of the other flags is measured. WORKDIR gets estimators.json after each setting,
estimators.md, and the figure estimators.png (also as SVG). Rerun the same command to resume.
"""

import contextlib
import json
import pathlib
from typing import Any

import jax
from absl import flags, logging

from experiments import comparison, settings
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.training import estimator_page, estimators, inner_setting, validation
from mass_jax.training.components import assemble

FLAGS = flags.FLAGS
REPLACED = ("inner_optimizer", "inner_lr", "inner_eps_root", "inner_steps", "outer", "adjoint")
DEFAULT = "first_order,truncated:1,truncated:2,truncated:4,t1t2,sama,evolution:16"


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(compare)


def compare(stop: runtime.Stop) -> None:
    """Checks the flags, measures the settings that are not in the workdir yet, and writes the results."""
    with contextlib.ExitStack() as held:
        try:
            config = settings.read()
            comparison.check_marginal(config)
            if FLAGS["outer"].present and FLAGS.outer != "gold":
                raise ValueError(f"--outer={FLAGS.outer!r} is not measured; use gold, or leave it out")
            texts = comparison.read_settings(config)
            for text in FLAGS.estimators:
                estimators.parse_estimator(text, config.inner_lr)
            opened = settings.workdir_and_mesh(held, config, "runs/estimators", stop)
            if opened is None:
                return
            workdir, mesh = opened
            components = held.enter_context(contextlib.closing(assemble(config, mesh)))
            chosen = [
                inner_setting.parse_setting(text, config, lambda: comparison.auto_of(components)) for text in texts
            ]
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        chosen = chosen or [inner_setting.InnerSetting.of(config, components.rollouts.loop)]
        problems = components.problems(FLAGS.seed).train[: FLAGS.problems]
        header = header_of(config, len(problems))
        results = read_results(workdir / "estimators.json", header)
        rollouts, weights = components.rollouts, components.pretrained()
        key = jax.random.fold_in(jax.random.key(FLAGS.seed), 5)
        wanted = [setting for setting in chosen if setting.label not in results]
        if len(wanted) < len(chosen):
            logging.info("%d of %d settings are already in estimators.json", len(chosen) - len(wanted), len(chosen))
        if wanted:
            drawn = validation.draw(
                rollouts, weights, problems, num_examples=config.num_examples, key=key, score=FLAGS.score
            )
        for number, setting in enumerate(wanted, 1):
            logging.info("setting %d of %d: %s", number, len(wanted), setting.label)
            results[setting.label] = estimators.compare(
                rollouts,
                weights,
                drawn,
                setting,
                estimators.estimators_of(FLAGS.estimators, setting),
                key=jax.random.fold_in(key, 4),
                repeats=FLAGS.repeats,
                poll=stop.poll,
            )
            write_results(workdir, header, results)
        write_results(workdir, header, results)
        if runtime.is_first():
            print((workdir / "estimators.md").read_text(encoding="utf-8"))


def header_of(config: Config, problems: int) -> dict[str, Any]:
    """Returns what a measurement depends on besides the inner optimizer."""
    others = {name: value for name, value in json.loads(config.to_json()).items() if name not in REPLACED}
    return {
        "model": config.model,
        "task": config.task,
        "problems": problems,
        "examples": config.num_examples,
        "score": FLAGS.score,
        "seed": FLAGS.seed,
        "repeats": FLAGS.repeats,
        "estimators": FLAGS.estimators,
        "device": jax.devices()[0].device_kind,
        "config": others,
    }


def read_results(path: pathlib.Path, header: dict[str, Any]) -> dict[str, dict[str, estimators.EstimatorRow]]:
    """Returns the rows of an earlier run of the same measurement, by setting and estimator; see `comparison.read`."""
    return comparison.read(
        path, header, lambda rows: {name: estimators.EstimatorRow.from_dict(row) for name, row in rows.items()}
    )


def write_results(
    workdir: pathlib.Path, header: dict[str, Any], results: dict[str, dict[str, estimators.EstimatorRow]]
) -> None:
    """Writes the rows, the tables and the figure."""
    if not runtime.is_first():
        return
    rows = {label: {name: row.to_dict() for name, row in found.items()} for label, found in results.items()}
    comparison.write(workdir / "estimators.json", header, rows)
    runtime.write_atomically(workdir / "estimators.md", estimator_page.tables(header, results))
    estimator_page.figure(header, results, workdir / "estimators.png")


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    comparison.define()
    flags.adopt_module_key_flags(comparison)  # list them in --help
    forms = ", ".join(estimators.FORMS.values())
    flags.DEFINE_list(
        "estimators",
        DEFAULT.split(","),
        f"Estimators to compare with the exact one. Any of: {forms}. STEPS is the number of last inner steps that are "
        "differentiated; PAIRS is the number of antithetic pairs, whose noise has the standard deviation SIGMA (0.1).",
    )
    flags.DEFINE_integer(
        "repeats", 3, "Number of timed runs of each estimator; those that take more than 20 s run once.", lower_bound=1
    )


if __name__ == "__main__":
    define()
    settings.run(main)
