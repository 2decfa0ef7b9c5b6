"""Compares inner optimizers by their signal before training and by MASS after training.

    python -m experiments.inner_optimizers --settings="sgd:0.2;adam:0.03:1e-8;adam:0.03:auto" --seeds=0,1,2 \\
        --workdir=runs/inner_optimizers

A setting is OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; missing values are those of --inner_eps_root and --inner_steps. Every
setting trains MASS once per seed, about two minutes each for the tiny preset. Prints the table, and writes it as
inner_optimizers.json, .md, .png and .svg to the workdir after each training. Rerun the same command to resume; finished
trainings are kept.
"""

import contextlib

from absl import flags

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.evaluation import inner_comparison
from mass_jax.training.inner_setting import with_setting

SETTINGS = (
    "sgd:0.2;sgd:0.05;momentum:0.1;adagrad:0.03;rmsprop:0.01;adam:0.03:1e-8;adam:0.03:1e-4;adam:0.03;adam:0.1;"
    "adamw:0.03;amsgrad:0.03;nadam:0.03"
)

settings.define()
settings.define_mesh()
settings.define_compilation_cache()
flags.adopt_module_key_flags(settings)
_SETTINGS = flags.DEFINE_string("settings", SETTINGS, "Inner optimizers, separated by semicolons.")
workdirs.define("Directory of the comparison; pass it again to resume.")
flags.adopt_module_key_flags(workdirs)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Runs the comparison; errors in the user's input become `UserError`."""
    with contextlib.ExitStack() as held:
        try:
            config = settings.read()
            chosen = [text.strip() for text in _SETTINGS.value.split(";") if text.strip()]
            for text in chosen:
                with_setting(text, config)
            opened = settings.workdir_and_mesh(held, config, "runs/inner_optimizers", stop)
            if opened is None:
                return
            workdir, mesh = opened
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        rows = inner_comparison.compare(config, chosen, workdir, mesh, stop)
        if runtime.is_first():
            print(inner_comparison.table_of(rows))


if __name__ == "__main__":
    settings.run(main)
