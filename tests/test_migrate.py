"""The PyTorch examples of the migration guide give the gradients of the JAX examples."""

import pathlib
import re

import jax
import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "guides" / "migrate.md"


@pytest.fixture(scope="module")
def namespace():
    """Names that the page defines, after all of its blocks ran in order."""
    pytest.importorskip("higher")
    pytest.importorskip("torchopt")
    import torch

    blocks = re.findall(r"```py(?:thon)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            for block in blocks:
                exec(compile(block, PAGE.name, "exec"), names)
    finally:
        torch.set_default_dtype(default)
    return names


def test_higher_gives_the_same_gradient(namespace):
    np.testing.assert_allclose(namespace["before_higher"], namespace["after"], rtol=1e-8)


def test_torchopt_gives_the_same_gradient(namespace):
    np.testing.assert_allclose(namespace["before_torchopt"], namespace["after_adam"], rtol=1e-8)
