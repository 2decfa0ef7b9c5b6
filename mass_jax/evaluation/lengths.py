"""Checks of a study before it trains: every prompt fits, and the inner optimizer has a usable meta-gradient."""

from collections.abc import Sequence

from mass_jax.rows import ROWS
from mass_jax.training import train
from mass_jax.training.check_inner import check_inner_optimizer
from mass_jax.training.components import Components


def check_lengths(components: Components, rows: Sequence[str], seed: int, training: bool = True) -> None:
    """Checks that every prompt of one seed fits its length and the inner optimizer is usable, before training.

    Args:
        components: the components of the run.
        rows: keys of `mass_jax.rows.ROWS`.
        seed: random seed of the problems and of their order in training.
        training: whether the rows will also be trained.

    Raises:
        TooLong: a prompt or a gold solution does not fit; names the setting and the value to raise it to.
        UserError: a row needs prompts that the task does not have, or the meta-gradient through the inner optimizer
            would be unusable.
    """
    problems, dialogue, config = components.problems(seed), components.rollouts.dialogue, components.config
    chosen = [ROWS[name] for name in rows]
    evaluated = [problem for column in problems.columns.values() for problem in column]
    if any(row.answers != "few_shot" for row in chosen):
        dialogue.solver_prompts(evaluated)
    for instructed in {row.prompt == "instructed" for row in chosen if row.examples == "self"}:
        dialogue.generator_prompts(evaluated, instructed)
    runs = [row.training for row in chosen if row.training is not None] if training else []
    if not runs:
        return
    draws = train.task_order(len(problems.train), config.tasks_per_step, seed)
    numbers = sorted({number for step in range(config.steps) for number in draws(step)})
    drawn = problems.train if config.dynamic_sampling else [problems.train[number] for number in numbers]
    if any(run.learner == "mass" for run in runs):
        check_inner_optimizer(config, components.rollouts.loop)
        dialogue.generator_prompts(drawn)
    if any(run.outer == "gold" or run.learner == "solver_sft" for run in runs):
        dialogue.gold(drawn)
    if any(run.outer == "verifier" or run.learner == "solver_grpo" for run in runs):
        dialogue.solver_prompts(drawn)
