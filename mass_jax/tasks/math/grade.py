"""One answer against one gold answer: a verdict, whatever the text is."""

from mass_jax.tasks.math.answer import Unreadable, read
from mass_jax.tasks.math.compare import Equal, Undecided, equal_rationals, same
from mass_jax.tasks.problem import Verdict


def grade(gold: str, answer: str, equal: Equal) -> Verdict:
    """Right, wrong or unparsable; a gold answer that cannot be read is matched as text.

    Args:
        gold, answer: answers alone, in LaTeX or plain.
        equal: decides two expressions; its `Undecided` passes through.

    >>> grade(r"\\frac12", "0.5", equal_rationals), grade("2", "(2", equal_rationals)
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
        return Verdict.RIGHT if same(wanted, answered, equal) else Verdict.WRONG
    except Unreadable:
        return Verdict.UNPARSABLE


def grade_quickly(gold: str, answer: str) -> Verdict | None:
    """The verdict where plain numbers and words settle it, without sympy; None if a worker has to look.

    >>> grade_quickly("1,250", "1250.0"), grade_quickly(r"\\sqrt{8}", r"2\\sqrt{2}")
    (<Verdict.RIGHT: 'right'>, None)
    """
    try:
        return grade(gold, answer, equal_rationals)
    except Undecided:
        return None
