"""Meta-trains MASS and its baselines, evaluates them, and writes a report.

    python -m experiments.train --preset=tiny --workdir=runs/tiny

Rerun the same command to resume: training continues from its last checkpoint, evaluation from its last finished batch.
WORKDIR/report has table1.md and table1.json, accuracy.png, gain_by_subject.png, training.png and examples.html.
"""

import contextlib

from absl import flags, logging

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.evaluation import study
from mass_jax.planning import policies
from mass_jax.training.components import assemble

settings.define()
settings.define_machines()
settings.define_compilation_cache()
settings.define_compile_effort()
flags.adopt_module_key_flags(settings)
workdirs.define("Directory of this run; pass it again to resume.")
flags.adopt_module_key_flags(workdirs)
_COMPILE_THREADS = flags.DEFINE_integer(
    "compile_threads",
    2,
    "Number of programs to compile at once, ahead of time; 0 compiles each when it is called.",
    lower_bound=0,
)


def main(_: list[str]) -> None:
    """Runs `train_and_report`."""
    settings.guarded(train_and_report)


def train_and_report(stop: runtime.Stop) -> None:
    """Runs the command; errors while reading and checking the user's input become `UserError`."""
    with contextlib.ExitStack() as held:
        try:
            config = settings.read()
            explicit = settings.explicit(config)  # names errors in optimizers before the model is loaded
            if flags.FLAGS.print_config:
                print(explicit.to_json())
                return
            if flags.FLAGS.workdir is None:
                raise ValueError("--workdir is missing; pass a directory for this run, such as --workdir=runs/tiny")
            settings.join_machines()
            workdir = workdirs.opened(held, stop)
            mesh = runtime.make_mesh(flags.FLAGS.mesh)
            config = policies.stored(config, runtime.read_settings(workdir / "config.json"))
            runtime.check_workdir(workdir, config.to_json(), replace=True)
            held.enter_context(runtime.lock_workdir(workdir, stop))  # before the expensive model load
            config = policies.resolved(config, mesh)
            held.enter_context(runtime.use_mesh(mesh))
            components = held.enter_context(contextlib.closing(assemble(config, mesh)))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        study.run_study(components, workdir, stop, _COMPILE_THREADS.value)
        if runtime.is_first():
            print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
            logging.info("report: %s", workdir / "report")


if __name__ == "__main__":
    settings.run(main)
