"""The table of measured settings."""

import math

from mass_jax.metagrad.signal import Interval, SignalReport
from mass_jax.training import signal_page

HEADER = {"model": "tiny", "task": "testbed", "generator": "pretrained", "problems": 8, "examples": 4}
HEADER |= {"outer": "gold", "score": 0.5, "seed": 0}


def report(**numbers):
    return SignalReport(8, 32, 0, {name.replace("__", "/"): value for name, value in numbers.items()}, {})


def test_numbers_of_few_problems_say_how_many():
    shown = signal_page.table(
        HEADER,
        {
            "a": report(leave_one_out__spearman=Interval(0.97, 0.9, 1.0, 8), reward_auc=Interval(0.7, 0.6, 0.8, 5)),
            "b": report(leave_one_out__spearman=Interval(math.nan, math.nan, math.nan, 0)),
        },
    )
    assert "| setting | leave-one-out | AUC | findings |" in shown
    assert "| a | 0.97 (0.90, 1.00) | 0.70 (0.60, 0.80; n = 5) | none |" in shown
    assert "| b | none |  | not measured |" in shown


def test_table_names_another_reward():
    good = {"a": report(zero_sum_index=Interval(0.4, 0.3, 0.5, 8))}
    assert "score 0.5, seed 0.\n" in signal_page.table(HEADER | {"config": {"reward": "marginal"}}, good)
    assert "seed 0, --reward=path.\n" in signal_page.table(HEADER | {"config": {"reward": "path"}}, good)
