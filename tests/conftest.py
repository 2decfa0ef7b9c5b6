"""Settings shared by every test: strict promotion, float64 on request."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Runs the test in float64, where equality is claimed."""
    with jax.enable_x64(True):
        yield
