"""Tests of the settings that decide how an architecture is executed."""

import pytest

from mass_jax.config import Config
from mass_jax.planning import shapes
from mass_jax.training.architecture import execution


@pytest.mark.parametrize(
    ("settings", "field", "expected"),
    [
        ({"remat": "dots"}, "remat", "dots"),
        ({"loss_chunk": 3}, "loss_chunk", 3),
        ({"scan_unroll": 2}, "unroll", 2),
        ({"attention": "blockwise", "attention_block": 7}, "attention_block", 7),
        ({"half_products": True}, "half_products", True),
        ({"compute_dtype": "bfloat16"}, "dtype", "bfloat16"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_setting_reaches_the_architecture(settings, field, expected):
    shape = shapes.shape_of(Config().model)
    unchanged = execution(Config(), shape)
    changed = execution(Config(**settings), shape)
    assert getattr(changed, field) == expected != getattr(unchanged, field)
