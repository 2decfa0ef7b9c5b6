"""Tests of the checks of a user's own task."""

import pytest

from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem, Problems
from mass_jax.tasks.checks import METHODS, check_protocol, checked_problems
from mass_jax.tasks.families import FamiliesTask
from mass_jax.tasks.testbed import Domain, OperatorTask

P = Problem("p", "1 + 1", "2", "2")


class Partial(OperatorTask):
    verify = None


class Narrow(OperatorTask):
    def solver_prompt(self, problem):
        return problem


class Wide(OperatorTask):
    def useful(self, problem, example, model):
        return None


def test_check_protocol_accepts_tasks_of_the_package():
    assert len(METHODS) == 7
    for task in (OperatorTask(Domain.generate(7)), FamiliesTask()):
        check_protocol(task, "task")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (OperatorTask, r"task is the class OperatorTask; give an object, OperatorTask\(...\)"),
        (Partial(Domain.generate(7)), "Partial has no verify; see mass_jax.tasks.base.Task"),
        (Narrow(Domain.generate(7)), r"Narrow.solver_prompt\(problem, shots\): too many positional arguments; see"),
        (Wide(Domain.generate(7)), r"Wide.useful\(problem, example\): missing a required argument: 'model'; see"),
    ],
    ids=["class", "missing", "narrow", "wide"],
)
def test_check_protocol_names_the_fault(task, message):
    with pytest.raises(UserError, match=message):
        check_protocol(task, "--task=mine:make")


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (None, "returns NoneType; return mass_jax.tasks.base.Problems"),
        (Problems([P], {}, None), "name at least one evaluation set"),
        (Problems([], {"test": [P]}, None), r"Problems.train is \[\]; give a list of problems, not empty"),
        (Problems([P], {"test": ["1 + 1"]}, None), r"Problems.columns\['test'\] holds str; give"),
        (Problems([P, P], {"test": [P]}, None), "Problems.train has the id 'p' twice; give each its own"),
    ],
    ids=["none", "no column", "no problem", "text", "id"],
)
def test_checked_problems_names_the_fault(problems, message):
    with pytest.raises(UserError, match=message):
        checked_problems(problems, "--task=mine:make")
