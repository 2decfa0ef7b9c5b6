"""Prints which optimizers of optax have a usable meta-gradient, as a Markdown table.

    python -m experiments.optimizers --names=adamw,contrib.muon --num_steps=2,8

Every function is checked as `mg.check_optimizer` does before training; all of them take about five minutes. The stored
table is docs/reference/optimizers.md.
"""

from absl import flags

from experiments import settings
from mass_jax.errors import UserError
from mass_jax.metagrad import support
from mass_jax.optax_functions import near, transformations


def main(_: list[str]) -> None:
    """Prints the table."""
    settings.guarded(lambda _: print(support.page(rows(flags.FLAGS.names, flags.FLAGS.num_steps)), end=""))


def rows(names: list[str], num_steps: list[str]) -> list[support.SupportRow]:
    """Measures the rows of the table.

    Args:
        names: names of optax functions; empty means all.
        num_steps: numbers of inner steps.

    Raises:
        UserError: optax has no such function, or a number of steps is invalid.
    """
    for name in names:
        if name not in transformations():
            raise UserError(f"--names: {name!r} is unknown; {near(name, transformations())}")
    if not num_steps or not all(count.isascii() and count.isdigit() and int(count) for count in num_steps):
        raise UserError(f"--num_steps={','.join(num_steps)} must be a list of positive numbers, like 1,2,5")
    return support.support_table([int(count) for count in num_steps], names or None)


def define() -> None:
    """Defines this command's flags."""
    flags.DEFINE_list("names", [], "Functions of optax, such as adamw or contrib.muon; all by default.")
    flags.DEFINE_list("num_steps", ["1", "2", "3", "5", "8"], "Numbers of inner steps K to check.")


if __name__ == "__main__":
    define()
    settings.run(main)
