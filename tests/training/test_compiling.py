"""Announcements of compilation, and compilation ahead of time."""

import logging

import jax
import jax.numpy as jnp
import pytest

from mass_jax.training import compiling


@pytest.fixture(autouse=True)
def fresh(monkeypatch, no_compilation_cache):
    """Forgets what earlier tests announced, and reports the shortest compilations."""
    monkeypatch.setattr(compiling, "_announced", set())
    monkeypatch.setattr(compiling, "_SHORTEST", 0.0)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_announced_logs_start_and_duration_once(caplog):
    square = jax.jit(lambda x: x * x)
    with caplog.at_level(logging.INFO, "absl"):
        for _ in range(2):
            with compiling.announced("the square"):
                square(jnp.float32(3))
    first, second = messages(caplog)
    assert first == "compiling the square ..."
    assert second.startswith("compiled the square in ")


def test_ahead_compiles_before_the_call(caplog):
    cube, argument = jax.jit(lambda x: x**3), jnp.float32(2)
    todo = {"the cube": lambda: cube.lower(argument).compile()}
    with caplog.at_level(logging.INFO, "absl"), compiling.ahead(todo, 1), compiling.announced("the cube"):
        found = cube(argument)
    first, second = messages(caplog)
    assert float(found) == 8
    assert first == "compiling ahead of time, in this order: the cube ..."
    assert second.startswith("compiled the cube in ")  # by the thread; the call compiled nothing


def test_ahead_leaves_errors_to_the_call(caplog):
    broken, argument = jax.jit(lambda x: x + jnp.zeros(3)), jnp.zeros(2)
    todo = {"a sum": lambda: broken.lower(argument).compile()}
    with (
        caplog.at_level(logging.INFO, "absl"),
        compiling.ahead(todo, 1),
        pytest.raises(TypeError),
        compiling.announced("a sum"),
    ):
        broken(argument)
    assert any(text.startswith("could not compile a sum ahead of time") for text in messages(caplog))
