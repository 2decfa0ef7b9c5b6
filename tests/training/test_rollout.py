"""Rollouts write from the prompt that the caller chooses."""

import jax

from mass_jax.tasks.base import Problem
from mass_jax.tasks.testbed import Domain, OperatorTask
from mass_jax.training.components import model_directory
from tests.small_models import components


class Instructed(OperatorTask):
    """The testbed with an instruction to write examples for one problem, whatever the target."""

    def instructed_prompt(self, problem):
        return self.generator_prompt("7 kisu 4")


def test_instructed_texts_come_from_instructed_prompt():
    made, keys = components(), jax.random.split(jax.random.key(0), 2)
    rollouts = made.rollouts.with_task(Instructed(Domain.load(model_directory("tiny") / "domain.json")))
    problems = made.problems(0).columns["unseen"]
    other = [Problem("", "7 kisu 4", "", "")] * len(problems)
    instructed, _ = rollouts.write_texts(made.pretrained(), problems, keys, 2, instructed=True)
    assert instructed == rollouts.write_texts(made.pretrained(), other, keys, 2)[0]
    assert instructed != rollouts.write_texts(made.pretrained(), problems, keys, 2)[0]
    synthetic, _ = rollouts.write_examples(made.pretrained(), problems, keys, 2, instructed=True)
    assert synthetic.texts_NM == instructed
