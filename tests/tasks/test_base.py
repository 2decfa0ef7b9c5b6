"""Optional protocols of tasks."""

import pytest

from mass_jax.errors import UserError
from mass_jax.tasks.base import Instructs, instructed_prompt
from mass_jax.tasks.families import FamiliesTask
from mass_jax.tasks.math import MathTask
from mass_jax.tasks.reasoning import ReasoningTask
from mass_jax.tasks.registry import CATALOGUE
from mass_jax.tasks.testbed import Domain, OperatorTask


def test_instructed_prompt_names_tasks_that_have_one():
    classes = {"families": FamiliesTask, "math": MathTask, "reasoning_gym": ReasoningTask, "testbed": OperatorTask}
    assert classes.keys() == CATALOGUE.keys()
    with pytest.raises(UserError) as caught:
        instructed_prompt(OperatorTask(Domain.generate(7)), "7 zomu 4")
    for name, task in classes.items():
        assert (name in str(caught.value)) == issubclass(task, Instructs)
    assert "\n" not in str(caught.value)
    assert instructed_prompt(FamiliesTask(), "6 * 7") == FamiliesTask().instructed_prompt("6 * 7")
