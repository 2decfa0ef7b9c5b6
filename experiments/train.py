"""Meta-trains MASS and its baselines, evaluates them, and writes a report.

    python -m experiments.train --preset=tiny --workdir=runs/tiny

The same workdir resumes: training from its last checkpoint, evaluation from its last finished row. The report is in
WORKDIR/report: table1.md and table1.json, accuracy.png, gain_by_subject.png, training.png, examples.html.
"""

import pathlib

from absl import flags, logging

from experiments import settings
from mass_jax import runtime, study, train
from mass_jax.assemble import assemble
from mass_jax.method.text import TooLong

settings.define()
flags.adopt_module_key_flags(settings)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of this run; give it again to resume.")


def main(_: list[str]) -> None:
    try:
        config = settings.read()
        if flags.FLAGS.print_config:
            print(config.to_json())
            return
        if _WORKDIR.value is None:
            raise ValueError("--workdir is missing; give a directory for this run, like --workdir=runs/tiny")
        workdir = pathlib.Path(_WORKDIR.value)
        runtime.claim_workdir(workdir, config.to_json())
        parts = assemble(config)
    except (ValueError, FileNotFoundError) as error:
        settings.fail(str(error))
    try:
        with runtime.stop_on_signals() as stop:
            study.run_study(parts, workdir, stop)
    except runtime.Interrupted as interrupted:
        logging.warning("stopped by %s; run the same command to go on", interrupted)
        raise SystemExit(interrupted.exit_code) from None
    except (train.NotFinite, TooLong) as error:
        settings.fail(str(error))
    print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
    logging.info("report: %s", workdir / "report")


if __name__ == "__main__":
    settings.run(main)
