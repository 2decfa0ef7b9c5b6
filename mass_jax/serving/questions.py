"""Questions as the service accepts them: strings, mappings or problems."""

from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.errors import UserError
from mass_jax.serving import stages
from mass_jax.tasks.base import Problem

Question = str | Mapping[str, Any] | Problem


def as_questions(problems: Sequence[Question]) -> list[Problem]:
    """Converts questions to problems with ids; a question without an id, or with null, gets its index.

    Raises:
        UserError: a question has no problem or too long a one, or its id is repeated or of another type.

    >>> [question.id for question in as_questions(["1 + 1", {"problem": "2 + 2", "id": "b"}])]
    ['0', 'b']
    """
    if isinstance(problems, str):
        raise UserError(f"problems={problems!r} is a string; give a list of questions")
    found: dict[str, Problem] = {}
    for i, given in enumerate(problems):
        data = {"problem": given} if isinstance(given, str) else given
        data = {"problem": data.problem, "id": data.id} if isinstance(data, Problem) else data
        if not isinstance(data, Mapping) or not isinstance(data.get("problem"), str):
            raise UserError(f'question {i + 1} has no string "problem": {str(given)[:60]!r}')
        given_id = data.get("id")
        if isinstance(given_id, bool) or not isinstance(given_id, str | int | None):
            raise UserError(f"question {i + 1} has the id {str(given_id)[:60]!r}; give a string or an integer, or none")
        name = str(i if given_id is None else given_id)
        if name in found:
            raise UserError(f"question {i + 1} repeats the id {name!r}; give unique ids, or none")
        if len(data["problem"]) > stages.MOST_CHARS:
            raise UserError(f"question {i + 1} has {len(data['problem'])} characters; the limit is {stages.MOST_CHARS}")
        found[name] = Problem(name, data["problem"], "", "")
    return list(found.values())
