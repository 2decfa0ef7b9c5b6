"""Grades one answer against a gold answer; returns a verdict for any text."""

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import read
from mass_jax.tasks.grading.compare import same
from mass_jax.tasks.grading.judge import RATIONALS, Judge, Undecided
from mass_jax.tasks.grading.values import Unreadable


def grade(gold: str, answer: str, judge: Judge) -> Verdict:
    """Grades an answer. A gold answer that cannot be parsed is compared as text.

    Args:
        gold: Gold answer in LaTeX or plain text.
        answer: Answer in LaTeX or plain text, without the rest of the response.
        judge: Compares expressions.

    Returns:
        `RIGHT`, `WRONG` or `UNPARSABLE`.

    Raises:
        Undecided: If the judge cannot compare the expressions.

    Example:
        >>> grade(r"\\frac12", "0.5", RATIONALS), grade("2", "(2", RATIONALS)
        (<Verdict.RIGHT: 'right'>, <Verdict.UNPARSABLE: 'unparsable'>)
    """
    try:
        answered = read(answer)
    except Unreadable:
        return Verdict.UNPARSABLE
    if gold.strip(" +-").lower() == "nan":  # stands for no value, and equals nothing
        return Verdict.WRONG
    try:
        wanted = read(gold)
    except Unreadable:
        return Verdict.RIGHT if gold.strip() == answer.strip() else Verdict.WRONG
    try:
        return Verdict.RIGHT if same(wanted, answered, judge) else Verdict.WRONG
    except Unreadable:
        return Verdict.UNPARSABLE


def grade_quickly(gold: str, answer: str) -> Verdict | None:
    """Grades an answer with rational arithmetic and words only, without sympy.

    Args:
        gold: Gold answer in LaTeX or plain text.
        answer: Answer in LaTeX or plain text, without the rest of the response.

    Returns:
        The verdict, or None if a worker has to decide.

    Example:
        >>> grade_quickly("1,250", "1250.0"), grade_quickly(r"\\sqrt{8}", r"2\\sqrt{2}")
        (<Verdict.RIGHT: 'right'>, None)
    """
    try:
        return grade(gold, answer, RATIONALS)
    except Undecided:
        return None
