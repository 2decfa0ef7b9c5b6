"""Solver, generator and scorer prompts for mathematics problems.

Small models follow the form only if the prompt shows it: of 16 samples from SmolLM2-135M, 0 parsed with a zero-shot
prompt and 9 with two examples in the prompt (`Shots`).
"""

import dataclasses

from mass_jax.tasks.base import Example
from mass_jax.tasks.chat import Message, dialogue

SOLVE = "{problem}\n\nSolve the problem and put the final answer in \\boxed{{}}."
GENERATE = (
    "Here is a problem:\n{problem}\n\n"
    "Write one new practice problem that needs the same skill, with other numbers or another setting, and solve it. "
    "Use exactly this form:\nProblem: ...\nSolution: ... \\boxed{{...}}"
)
INSTRUCT = (
    "Here is a problem:\n{problem}\n\n"
    "Write one new problem with the same structure: the same kind of question and the same steps, with other numbers. "
    "Then solve the new problem step by step. "
    "Use exactly this form:\nProblem: ...\nSolution: ... \\boxed{{...}}"
)
EXAMPLE = "Problem: {problem}\nSolution: {solution}"
SCORE = "Target problem:\n{target}\n\nPractice problem:\n{problem}\n\nPractice solution:\n{solution}"


@dataclasses.dataclass(frozen=True)
class Shots:
    """Few-shot examples that precede the question in a prompt.

    Attributes:
        solved: Problems with solutions, for solver prompts.
        generator: Pairs of a target problem and an example for it, for generator prompts.
    """

    solved: tuple[Example, ...] = ()
    generator: tuple[tuple[str, Example], ...] = ()


ZERO_SHOT = Shots()


def solver_messages(problem: str, shots: Shots = ZERO_SHOT) -> list[Message]:
    """Builds the messages that ask for a solution.

    Args:
        problem: Problem text.
        shots: Few-shot examples; only `solved` is used.

    Returns:
        Messages that end with the user's question.

    Example:
        >>> solver_messages("1 + 1?")[-1]["content"].splitlines()[0]
        '1 + 1?'
    """
    turns = [(SOLVE.format(problem=shot.problem), shot.solution) for shot in shots.solved]
    return dialogue(turns, SOLVE.format(problem=problem))


def generator_messages(problem: str, shots: Shots = ZERO_SHOT, request: str = GENERATE) -> list[Message]:
    """Builds the messages that ask for one synthetic example.

    Args:
        problem: Target problem text.
        shots: Few-shot examples; only `generator` is used.
        request: `GENERATE` or `INSTRUCT`.

    Returns:
        Messages that end with the user's request.
    """
    turns = [
        (request.format(problem=target), EXAMPLE.format(problem=shot.problem, solution=shot.solution))
        for target, shot in shots.generator
    ]
    return dialogue(turns, request.format(problem=problem))


def scorer_text(problem: str, example: Example) -> str:
    """Returns the scorer's input; plain text without a chat template, since the scorer has no dialogue."""
    return SCORE.format(target=problem, problem=example.problem, solution=example.solution)
