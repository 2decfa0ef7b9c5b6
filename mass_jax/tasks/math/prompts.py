"""What the model is asked: solver, generator and scorer prompts as messages.

Small models keep the form only if they have seen it: of 16 samples SmolLM2-135M gave 0 that parse without examples, and
9 with two. `Shots` are such examples; without them the prompts are zero-shot.
"""

import dataclasses

from mass_jax.tasks.base import Example
from mass_jax.tasks.chat import Message, dialogue

SOLVE = "{problem}\n\nSolve the problem and put the final answer in \\boxed{{}}."
PRACTICE = (
    "Here is a problem:\n{problem}\n\n"
    "Write one new practice problem that needs the same skill, with other numbers or another setting, and solve it. "
    "Use exactly this form:\nProblem: ...\nSolution: ... \\boxed{{...}}"
)
EXAMPLE = "Problem: {problem}\nSolution: {solution}"
SCORE = "Target problem:\n{target}\n\nPractice problem:\n{problem}\n\nPractice solution:\n{solution}"


@dataclasses.dataclass(frozen=True)
class Shots:
    """Worked turns that come before the question.

    Args:
        solved: problems with solutions in the form that the solver is to keep.
        practice: (target problem, practice example written for it).
    """

    solved: tuple[Example, ...] = ()
    practice: tuple[tuple[str, Example], ...] = ()


ZERO_SHOT = Shots()


def solver_messages(problem: str, shots: Shots = ZERO_SHOT) -> list[Message]:
    """Turns that ask for a solution.

    >>> solver_messages("1 + 1?")[-1]["content"].splitlines()[0]
    '1 + 1?'
    """
    turns = [(SOLVE.format(problem=shot.problem), shot.solution) for shot in shots.solved]
    return dialogue(turns, SOLVE.format(problem=problem))


def generator_messages(problem: str, shots: Shots = ZERO_SHOT) -> list[Message]:
    """Turns that ask for one practice example."""
    turns = [
        (PRACTICE.format(problem=target), EXAMPLE.format(problem=shot.problem, solution=shot.solution))
        for target, shot in shots.practice
    ]
    return dialogue(turns, PRACTICE.format(problem=problem))


def scorer_text(problem: str, example: Example) -> str:
    """What the scorer reads; plain text, since it judges and does not talk."""
    return SCORE.format(target=problem, problem=example.problem, solution=example.solution)
