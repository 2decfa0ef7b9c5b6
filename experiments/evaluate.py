"""Evaluates what a training workdir holds, or untrained methods alone in a fresh one, and writes the report.

    python -m experiments.evaluate --workdir=runs/tiny
    python -m experiments.evaluate --preset=tiny --methods=base,ttt,tt_ss --workdir=runs/untrained
    python -m experiments.evaluate --workdir=runs/tiny --report_only

In a workdir that has settings, those hold, except --methods. Rows whose training is not finished are named and left
out. Every response is in WORKDIR/seed*/evaluation/*.jsonl; a killed evaluation goes on where it stopped.
--report_only builds WORKDIR/report from these records alone, without the model.
"""

import contextlib
import pathlib

from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import study
from mass_jax.training.components import assemble

settings.define()
settings.define_machines()
flags.adopt_module_key_flags(settings)
_WORKDIR = DEFINE_path("workdir", None, "Directory of a run, or of a fresh evaluation; give it again to resume.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Build the report from the records that there are.")


def main(_: list[str]) -> None:
    settings.guarded(evaluate_and_report)


def evaluate_and_report(stop: runtime.Stop) -> None:
    """Runs the command; errors of reading and checking the user's input become `UserError`."""
    with contextlib.ExitStack() as held:
        parts = None
        try:
            if _WORKDIR.value is None:
                raise ValueError("--workdir is missing; give the directory of a run, like --workdir=runs/tiny")
            workdir = runtime.workdir_path(_WORKDIR.value)
            if not _REPORT_ONLY.value:
                settings.join_machines()
            config = read_config(workdir)
            if flags.FLAGS.print_config:
                print(config.to_json())
                return
            held.enter_context(runtime.lock_workdir(workdir, stop))
            if not _REPORT_ONLY.value:
                mesh = runtime.make_mesh(flags.FLAGS.mesh)
                held.enter_context(runtime.use_mesh(mesh))
                parts = held.enter_context(contextlib.closing(assemble(config, mesh)))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        if parts is not None:
            study.run_evaluation(parts, workdir, stop)
        if runtime.is_first():
            study.write_report(config, workdir)
            print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
            logging.info("report: %s", workdir / "report")


def read_config(workdir: pathlib.Path) -> Config:
    """Reads the settings of a workdir, with the flags that the user gave put over them.

    In a fresh workdir, and with --preset, the flags give all settings.

    Raises:
        ValueError: a setting other than the methods contradicts the workdir, or its settings are damaged.
    """
    path = workdir / "config.json"
    before = None
    if runtime.read_settings(path) is not None:
        try:
            before = Config.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}); choose another --workdir") from None
    config = settings.read() if before is None or flags.FLAGS["preset"].present else settings.with_flags(before)
    runtime.check_workdir(workdir, config.to_json(), study.MAY_DIFFER, replace=True)
    return config


if __name__ == "__main__":
    settings.run(main)
