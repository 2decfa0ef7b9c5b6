"""Screens families on the training side: accuracy of Base, few-shot and adaptation to correct examples.

    python -m experiments.screen --task=reasoning_gym --reasoning_train=fitting --model=models/smollm2 \\
        --inner_optimizer=adam --inner_lr=0.002 --max_prompt_tokens=140 --max_generator_prompt_tokens=300 \\
        --max_answer_tokens=20 --num_train_problems=1000 --workdir=runs/screen

Prints the families in which correct examples gain at least 15 points over Base, and writes WORKDIR/screen.json,
screen.md and screen.png. Rerun the same command to resume; finished families are kept, and further ones can be added.
Works for every task that has correct examples and families as subjects: testbed, families, reasoning_gym.
"""

import contextlib

from absl import flags, logging

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.evaluation.screen import Plan, screen
from mass_jax.training.components import assemble

settings.define()
settings.define_mesh()
settings.define_compilation_cache()
flags.adopt_module_key_flags(settings)
workdirs.define("Directory of the screen; pass it again to resume.")
flags.adopt_module_key_flags(workdirs)
_PROBLEMS = flags.DEFINE_integer("screen_problems", 32, "Number of problems per cell.", lower_bound=2)
_GROUPS = flags.DEFINE_integer("screen_groups", 4, "Number of draws of correct examples per cell.", lower_bound=2)
_STEPS = flags.DEFINE_list("screen_steps", ["2", "4", "8"], "Numbers of inner steps K.")
_EXAMPLES = flags.DEFINE_list("screen_examples", ["6", "12", "24"], "Numbers of correct examples.")
_SHOTS = flags.DEFINE_integer("screen_shots", 6, "Number of solved problems in the few-shot prompt.", lower_bound=1)
_GRPO = flags.DEFINE_bool(
    "screen_solver_grpo",
    False,
    "Also train Solver GRPO for --steps steps on each family that has as many other training problems as are screened.",
)
_CONTROLS = flags.DEFINE_bool(
    "screen_controls",
    False,
    "Also adapt to the same examples with each other's answers, and to correct examples of another family. If these "
    "gain as much as correct examples, the gain is the form of the answers.",
)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Runs the screen; errors in the user's input become `UserError`."""
    with contextlib.ExitStack() as held:
        try:
            config, plan = settings.read(), _plan()
            opened = settings.workdir_and_mesh(held, config, "runs/screen", stop)
            if opened is None:
                return
            workdir, mesh = opened
            components = held.enter_context(contextlib.closing(assemble(config, mesh)))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        summary = screen(components, plan, workdir, stop)
        print((workdir / "screen.md").read_text(encoding="utf-8"))
        logging.info("kept %d of %d families: %s", len(summary["kept"]), len(summary["families"]), workdir)


def _plan() -> Plan:
    """Returns the plan of the flags."""
    numbers = {}
    for flag in (_STEPS, _EXAMPLES):
        if not flag.value or not all(item.isdigit() and int(item) for item in flag.value):
            raise ValueError(f"--{flag.name}={','.join(flag.value)} must be a list of positive integers, like 2,4,8")
        numbers[flag.name] = tuple(map(int, flag.value))
    return Plan(
        _PROBLEMS.value,
        _GROUPS.value,
        numbers["screen_steps"],
        numbers["screen_examples"],
        _SHOTS.value,
        _GRPO.value,
        _CONTROLS.value,
    )


if __name__ == "__main__":
    settings.run(main)
