"""Fixtures: problems of every family, scored in real worker processes."""

import pytest

from mass_jax.tasks.grading.workers.limits import Limits
from mass_jax.tasks.grading.workers.pool import Processes
from mass_jax.tasks.reasoning.scorer import PROGRAM


@pytest.fixture(scope="session")
def processes():
    with Processes(PROGRAM, workers=1, limits=Limits(cpu_seconds=1.0, wall_seconds=120.0)) as processes:
        yield processes
