"""Checks of a user's own task: one-line errors before a run starts, instead of a traceback in its middle."""

import inspect
from collections.abc import Mapping
from typing import Any

from mass_jax import own_code
from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem, Problems, Task

METHODS = tuple(name for name, member in vars(Task).items() if inspect.isfunction(member) and not name.startswith("_"))
"""Names of the methods of `Task`."""


def check_protocol(task: Any, name: str) -> None:
    """Checks that an object has the methods of `Task`, and that they take its arguments.

    Args:
        task: Object.
        name: What names it, for the error message.

    Raises:
        UserError: If it is a class, or a method is missing or takes other arguments.

    Example:
        >>> check_protocol(3, "--task=mine:make")
        Traceback (most recent call last):
        ...
        mass_jax.errors.UserError: --task=mine:make: int has no final_answer, generator_prompt, ...
    """
    if isinstance(task, type):
        raise UserError(f"{name}: task is the class {task.__name__}; give an object, {task.__name__}(...)")
    kind = type(task).__name__
    if missing := [method for method in METHODS if not callable(getattr(task, method, None))]:
        raise UserError(f"{name}: {kind} has no {', '.join(sorted(missing))}; see mass_jax.tasks.base.Task")
    for method in METHODS:
        parameters = list(inspect.signature(getattr(Task, method)).parameters.values())[1:]
        required = [parameter for parameter in parameters if parameter.default is parameter.empty]
        for arguments in (parameters, required):
            if fault := own_code.call_fault(getattr(task, method), *arguments):
                given = ", ".join(parameter.name for parameter in arguments)
                raise UserError(f"{name}: {kind}.{method}({given}): {fault}; see mass_jax.tasks.base.Task")


def checked_problems(problems: Any, name: str) -> Problems:
    """Returns the problems of a task after checking their types.

    Args:
        problems: What the task returns.
        name: What names the task, for the error message.

    Raises:
        UserError: If it is not a `Problems` of non-empty lists of `Problem`, or a list has an id twice.

    Example:
        >>> checked_problems([], "--task=mine:make")
        Traceback (most recent call last):
        ...
        mass_jax.errors.UserError: --task=mine:make: problems(seed) returns list; return mass_jax.tasks.base.Problems
    """
    if not isinstance(problems, Problems):
        kind = type(problems).__name__
        raise UserError(f"{name}: problems(seed) returns {kind}; return mass_jax.tasks.base.Problems")
    if not isinstance(problems.columns, Mapping) or not problems.columns:
        raise UserError(f"{name}: Problems has columns={problems.columns!r:.40}; name at least one evaluation set")
    lists = {"train": problems.train} | {f"columns[{key!r}]": value for key, value in problems.columns.items()}
    for where, found in lists.items():
        if not isinstance(found, list) or not found:
            raise UserError(f"{name}: Problems.{where} is {found!r:.40}; give a list of problems, not empty")
        other = next((item for item in found if not isinstance(item, Problem)), None)
        if other is not None:
            raise UserError(f"{name}: Problems.{where} holds {type(other).__name__}; give mass_jax.tasks.base.Problem")
        seen: set[str] = set()
        for problem in found:
            if problem.id in seen:
                raise UserError(f"{name}: Problems.{where} has the id {problem.id!r:.40} twice; give each its own")
            seen.add(problem.id)
    return problems
