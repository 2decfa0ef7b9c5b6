"""The table of rows, and the names that settings and studies derive from it."""

import pytest

from mass_jax import rows
from mass_jax.config import Config
from mass_jax.evaluation.study import rows_of


def test_rows_have_distinct_labels():
    assert len({row.label for row in rows.ROWS.values()}) == len(rows.ROWS)


def test_rows_with_one_run_share_its_definition():
    for row in rows.ROWS.values():
        assert row.training is None or rows.TRAINING_RUNS[row.run] == row.training


def test_config_accepts_methods_and_baselines_only():
    assert Config(methods=rows.METHODS + rows.BASELINES).chosen_methods == rows.METHODS + rows.BASELINES
    for name in rows.named("reference", "control"):
        with pytest.raises(ValueError, match=f"{name!r} is unknown"):
            Config(methods=("base", name))


@pytest.mark.parametrize(("outer", "excluded"), [("gold", "mass"), ("verifier", "mass_gold"), ("both", None)])
def test_rows_of_follows_outer_loss(outer, excluded):
    expected = [
        name for name in rows.METHODS + rows.named("reference") if name not in (excluded, f"{excluded}_unadapted")
    ]
    assert rows_of(Config(outer=outer)) == expected
