"""Forms in which the generator writes a synthetic example, and their parsing in linear time.

An example is read as a problem with its solution whatever its form. The forms differ in the order of writing: a model
writes the numbers of `7x = 28` more easily after the answer 4 than it solves the equation.
"""

from mass_jax.errors import UserError
from mass_jax.tasks.base import Example

QUESTION_FIRST, ANSWER_FIRST, WORKED = "question_first", "answer_first", "worked"
FORMS = (QUESTION_FIRST, ANSWER_FIRST, WORKED)
ANSWER, PROBLEM = "Answer:", "Problem:"


def write(example: Example, form: str) -> str:
    """Formats an example on one line.

    Args:
        example: Problem and solution, one line each.
        form: One of `FORMS`; a worked solution is written like a short one, after the question.

    Example:
        >>> write(Example("7x = 28", "4"), "answer_first")
        'Answer: 4 Problem: 7x = 28'
    """
    if form == ANSWER_FIRST:
        return f"{ANSWER} {example.solution} {PROBLEM} {example.problem}"
    return f"{example.problem} {ANSWER} {example.solution}"


def read(text: str, form: str) -> Example | None:
    """Parses the text of `write`; returns None if a part is missing, empty or repeated.

    Args:
        text: Generated text; may be any text.
        form: One of `FORMS`.

    Example:
        >>> read(" Answer: 4 Problem: 7x = 28", "answer_first")
        Example(problem='7x = 28', solution='4')
        >>> read("7x = 28 Answer: 4 Answer: 5", "question_first") is None
        True
    """
    if text.count(ANSWER) != 1 or text.count(PROBLEM) != (form == ANSWER_FIRST):
        return None
    before, _, after = text.partition(ANSWER)
    if form == ANSWER_FIRST:
        if before.strip():
            return None
        solution, _, problem = after.partition(PROBLEM)
    else:
        problem, solution = before, after
    problem, solution = problem.strip(), solution.strip()
    return Example(problem, solution) if problem and solution else None


def refuse_other_forms(form: str, task: str, *accepted: str) -> None:
    """Checks the setting for a task that does not write all forms.

    Args:
        form: Value of `--example_form`.
        task: Name of the task.
        *accepted: Forms that the task writes besides question_first.

    Raises:
        UserError: If the task does not write the form.
    """
    if form not in (known := (QUESTION_FIRST, *accepted)):
        raise UserError(f"--example_form={form} does not apply to --task={task}; use {' or '.join(known)}")
