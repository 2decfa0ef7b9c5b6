"""The settings that --print_config prints name the eps_root of the run."""

import pytest

from mass_jax.config import Config
from mass_jax.training.resolved import resolved


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("adam(eps_root=auto)", "1e-4", "adam(learning_rate=0.1, eps_root=auto)"),
        (
            "nadam(eps_root=auto) | amsgrad",
            "1e-4",
            "nadam(learning_rate=0.1, eps_root=auto) | amsgrad(learning_rate=0.1, eps_root=auto)",
        ),
        ("chain(scale_by_adam(eps_root=auto))", "1e-6", "chain(scale_by_adam(eps_root=auto))"),
        ("amsgrad", "auto", "amsgrad(learning_rate=0.1, eps_root=auto)"),
        ("amsgrad", "1e-4", "amsgrad(learning_rate=0.1, eps_root=0.0001)"),
        ("amsgrad(eps_root=1e-3)", "auto", "amsgrad(learning_rate=0.1, eps_root=0.001)"),
    ],
)
def test_resolved_keeps_auto_where_run_measures(text, given, expected):
    found = resolved(Config(inner_optimizer=text, inner_lr=0.1, inner_eps_root=given))
    assert found.inner_optimizer == expected
    assert resolved(found) == found
