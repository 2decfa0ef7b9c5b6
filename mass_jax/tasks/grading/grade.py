"""One answer against one gold answer: a verdict, whatever the text is."""

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import read
from mass_jax.tasks.grading.compare import same
from mass_jax.tasks.grading.judge import RATIONALS, Judge, Undecided
from mass_jax.tasks.grading.values import Unreadable


def grade(gold: str, answer: str, judge: Judge) -> Verdict:
    """Right, wrong or unparsable; a gold answer that cannot be read is matched as text.

    Args:
        gold, answer: answers alone, in LaTeX or plain.
        judge: decides expressions; its `Undecided` passes through.

    >>> grade(r"\\frac12", "0.5", RATIONALS), grade("2", "(2", RATIONALS)
    (<Verdict.RIGHT: 'right'>, <Verdict.UNPARSABLE: 'unparsable'>)
    """
    try:
        answered = read(answer)
    except Unreadable:
        return Verdict.UNPARSABLE
    try:
        wanted = read(gold)
    except Unreadable:
        return Verdict.RIGHT if gold.strip() == answer.strip() else Verdict.WRONG
    try:
        return Verdict.RIGHT if same(wanted, answered, judge) else Verdict.WRONG
    except Unreadable:
        return Verdict.UNPARSABLE


def grade_quickly(gold: str, answer: str) -> Verdict | None:
    """The verdict where plain numbers and words settle it, without sympy; None if a worker has to look.

    >>> grade_quickly("1,250", "1250.0"), grade_quickly(r"\\sqrt{8}", r"2\\sqrt{2}")
    (<Verdict.RIGHT: 'right'>, None)
    """
    try:
        return grade(gold, answer, RATIONALS)
    except Undecided:
        return None
