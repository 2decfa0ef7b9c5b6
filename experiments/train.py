"""Meta-trains MASS and its baselines, evaluates them, and writes a report.

    python -m experiments.train --preset=tiny --workdir=runs/tiny

The same workdir resumes: training from its last checkpoint, evaluation from its last finished row. The report is in
WORKDIR/report: table1.md and table1.json, accuracy.png, gain_by_subject.png, training.png, examples.html.
"""

import os
import pathlib
import sys

from absl import flags, logging

from experiments import settings
from mass_jax import runtime, study
from mass_jax.assemble import assemble
from mass_jax.errors import UserError

settings.define()
flags.adopt_module_key_flags(settings)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of this run; give it again to resume.")


def main(_: list[str]) -> None:
    try:
        with runtime.stop_on_signals() as stop:
            train_and_report(stop)
    except runtime.Interrupted as interrupted:
        logging.warning("stopped by %s; run the same command to go on", interrupted)
        raise SystemExit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        print("stopped at once; run the same command to go on from the last checkpoint", file=sys.stderr)
        os._exit(130)  # threads of a compilation or of a save would outlive a tidy end
    except UserError as error:
        settings.fail(str(error))


def train_and_report(stop: runtime.Stop) -> None:
    """The whole command; errors of reading and checking what the user gave are the user's."""
    try:
        config = settings.read()
        if flags.FLAGS.print_config:
            print(config.to_json())
            return
        if _WORKDIR.value is None:
            raise ValueError("--workdir is missing; give a directory for this run, like --workdir=runs/tiny")
        workdir = pathlib.Path(_WORKDIR.value)
        runtime.check_workdir(workdir, config.to_json())
        parts = assemble(config)
        for seed in config.seeds:
            parts.problems(seed)
        runtime.claim_workdir(workdir, config.to_json())
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    study.run_study(parts, workdir, stop)
    print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
    logging.info("report: %s", workdir / "report")


if __name__ == "__main__":
    settings.run(main)
