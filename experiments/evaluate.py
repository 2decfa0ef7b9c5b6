"""Evaluates what a training workdir holds, or untrained methods alone in a fresh one, and writes the report.

    python -m experiments.evaluate --workdir=runs/tiny
    python -m experiments.evaluate --preset=tiny --methods=base,ttt,tt_ss --workdir=runs/untrained
    python -m experiments.evaluate --workdir=runs/tiny --report_only

In a workdir that has settings, those hold, but for --methods. Rows whose training is not finished are named and left
out. Every response is in WORKDIR/seed*/evaluation/*.jsonl; a killed evaluation goes on where it stopped.
--report_only builds WORKDIR/report from these records alone, without the model.
"""

import contextlib
import dataclasses
import pathlib

from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime, study
from mass_jax.assemble import Parts, assemble
from mass_jax.config import Config
from mass_jax.errors import UserError

settings.define()
settings.define_machines()
flags.adopt_module_key_flags(settings)
_WORKDIR = DEFINE_path("workdir", None, "Directory of a run, or of a fresh evaluation; give it again to resume.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Build the report from the records that there are.")


def main(_: list[str]) -> None:
    settings.guarded(evaluate_and_report)


def evaluate_and_report(stop: runtime.Stop) -> None:
    """The whole command; errors of reading and checking what the user gave are the user's."""
    try:
        if _WORKDIR.value is None:
            raise ValueError("--workdir is missing; give the directory of a run, like --workdir=runs/tiny")
        workdir = runtime.workdir_path(_WORKDIR.value)
        if not _REPORT_ONLY.value:
            settings.join_machines()
        config, fresh = read_config(workdir)
        if flags.FLAGS.print_config:
            print(config.to_json())
            return
        parts = None if _REPORT_ONLY.value else assemble_on_mesh(config)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if parts is not None:
        with runtime.use_mesh(parts.feed.mesh), contextlib.closing(parts):
            for seed in config.seeds:
                parts.problems(seed)
            if runtime.agreed_maximum(fresh):
                runtime.claim_workdir(workdir, config.to_json())
            study.run_evaluation(parts, workdir, stop)
        if not runtime.is_first():
            return
    study.write_report(config, workdir)
    print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
    logging.info("report: %s", workdir / "report")


def assemble_on_mesh(config: Config) -> Parts:
    """The parts of the run on the devices that it was given."""
    mesh = runtime.make_mesh(flags.FLAGS.mesh)
    with runtime.use_mesh(mesh):
        return assemble(config, mesh)


def read_config(workdir: pathlib.Path) -> tuple[Config, bool]:
    """The settings of a workdir, or in a fresh one those of the flags; and whether it is fresh.

    Raises:
        ValueError: if a flag other than --methods contradicts the workdir, or its settings are damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        config = settings.read()
        runtime.check_workdir(workdir, config.to_json())
        return config, True
    try:
        before = Config.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); choose another --workdir") from None
    config = settings.with_flags(before)
    if dataclasses.replace(config, methods=before.methods) != before:
        runtime.check_workdir(workdir, dataclasses.replace(config, methods=before.methods).to_json())
    return config, False


if __name__ == "__main__":
    settings.run(main)
