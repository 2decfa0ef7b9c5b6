"""Tests for metagrad.benchmark: rows, refusals, and the time budget."""

import json
import time

import jax
import jax.numpy as jnp
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad.benchmark_runs import Budget, compile_all, interleaved


def losses_of(params, batch):
    return (params - batch) ** 2


def outer_loss(params, batch):
    return jnp.sum((params - batch) ** 2)


ARRAYS = (jnp.zeros(()), jnp.ones(3), jnp.array([1.0, -1.0, 2.0]), jnp.ones(()))
SETTINGS = {"optimizer": optax.sgd(0.1), "num_steps": 2}


@pytest.fixture(scope="module")
def measured():
    lines = []
    plain = lambda params, meta, batch: jnp.vdot(meta, losses_of(params, batch))  # noqa: E731
    adjoints = {"mixed": mg.MixedMode(), "weighted": mg.WeightedMixedMode()}
    result = mg.benchmark(plain, outer_loss, *ARRAYS, adjoints=adjoints, repeats=2, progress=lines.append, **SETTINGS)
    return result, lines


def test_result_has_every_repetition(measured):
    row = measured[0].rows[0]
    assert len(row.times) == 2
    assert min(row.times) <= row.seconds <= max(row.times)
    assert row.report.temp_bytes >= 0
    assert row.adjoint == "MixedMode(remat='save_grads')"


def test_adjoint_that_does_not_apply_has_a_reason(measured):
    row = measured[0].rows[1]
    assert (row.times, row.report) == ((), None)
    assert "WeightedMixedMode needs inner_loss=WeightedLoss" in row.failure
    assert row.failure in str(measured[0])


def test_result_converts_to_json(measured):
    found = json.loads(json.dumps(measured[0].to_dict()))
    assert [row["case"] for row in found["rows"]] == ["mixed", "weighted"]
    assert found["rows"][0]["times"] == list(measured[0].rows[0].times)


def test_progress_reports_programs_and_rounds(measured):
    assert sorted(line.split(" in ")[0] for line in measured[1]) == [
        "compiled 1 of 2",
        "compiled 2 of 2",
        "round 1 of 2",
        "round 2 of 2",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adjoints": []}, "adjoints is empty"),
        ({"adjoints": {"mine": mg.MixedMode}}, r"adjoints\['mine'\]=.* is not an adjoint"),
        ({"adjoints": [mg.WeightedMixedMode()]}, "no adjoint applies to this problem"),
        ({"repeats": 0}, "repeats=0 times nothing"),
        ({"minutes": 0.0}, "minutes=0.0 leaves no time"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        mg.benchmark(lambda params, meta, batch: params, outer_loss, *ARRAYS, **SETTINGS, **changes)


def test_spent_budget_leaves_cases_out():
    calls = dict.fromkeys("abc", lambda: time.sleep(0.05))
    rounds = list(interleaved(calls, 50, budget=Budget(0.4)))
    assert 1 <= sum(map(len, rounds)) < 3 * 8
    assert all(list(seconds) == sorted(seconds) for seconds in rounds)
    assert list(interleaved(calls, 1, budget=Budget(0.0))) == []


def test_interleaved_skips_finished_calls():
    rounds = list(interleaved({"a": lambda: 0, "b": lambda: 0}, {"a": 2, "b": 0}))
    assert [list(seconds) for seconds in rounds] == [["a"], ["a"]]


def test_compile_all_stops_at_the_budget():
    def lower():
        return jax.jit(lambda x: x + 1).lower(1.0)

    names = [program.name for program in compile_all({"a": lower, "b": lower}, threads=1)]
    assert names == ["a", "b"]
    assert list(compile_all({"a": lower}, budget=Budget(0.0))) == []
