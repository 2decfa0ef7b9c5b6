"""Lazy namespaces of the sampling and llama packages."""

import importlib
import subprocess
import sys

import pytest

from mass_jax.sampling import loop


@pytest.mark.parametrize("package", ["mass_jax.llama", "mass_jax.sampling"])
def test_public_names_resolve(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == dir(module)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        _ = module.unknown


def test_sample_is_the_function():
    from mass_jax import sampling

    assert sampling.sample is loop.sample


def test_import_does_not_load_jax():
    code = "import sys, mass_jax.llama, mass_jax.sampling; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
