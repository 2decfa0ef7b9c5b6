"""Wrong answers as a control: do correct examples help by their content, or by the form of their answers?

Adaptation also teaches the format in which answers are expected. Examples with each other's answers keep the form and
lose the content: if they gain as much as correct ones, then rewards have little reason to prefer correct examples.
"""

from collections.abc import Sequence

from mass_jax.tasks.base import Example


def wrong_answers(examples: Sequence[Example]) -> list[Example]:
    """Gives every example the solution of another one, as far as solutions differ.

    Solutions are shifted in sorted order by the number of the most frequent one, so that no example keeps its own if
    no solution is held by more than half of the examples.

    Args:
        examples: Correct examples.

    Example:
        >>> wrong_answers([Example("1 + 1", "2"), Example("2 + 2", "4"), Example("3 - 1", "2"), Example("3 + 3", "6")])
        [Example(problem='1 + 1', solution='4'), Example(problem='2 + 2', solution='2'), \
Example(problem='3 - 1', solution='6'), Example(problem='3 + 3', solution='2')]
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i].solution)
    solutions = [examples[i].solution for i in order]
    shift = max((solutions.count(solution) for solution in solutions), default=0)
    changed = list(examples)
    for place, i in enumerate(order):
        changed[i] = Example(examples[i].problem, solutions[(place + shift) % len(order)])
    return changed
