"""The environment of all commands that run as processes."""

import os

import pytest

from tests.commands import ROOT


@pytest.fixture(scope="session")
def environment():
    """Environment in which commands run from any directory; tests/conftest.py adds the compilation cache they share."""
    return os.environ | {"PYTHONPATH": str(ROOT)}
