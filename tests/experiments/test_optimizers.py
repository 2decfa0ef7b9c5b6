"""Tests of experiments.optimizers."""

import pytest

from tests.commands import in_process


def test_optimizers_prints_rows_of_table():
    done = in_process("optimizers", "--names=sgd,polyak_sgd", "--num_steps=2")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == [
        "| `sgd` |  | exact |",
        "| `polyak_sgd` |  | rejected: update needs 'value' |",
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--names=sdg", "error: --names: 'sdg' is unknown; did you mean 'sgd'"),
        ("--num_steps=0", "error: --num_steps=0 must be a list of positive numbers, like 1,2,5"),
        ("--num_steps=two", "error: --num_steps=two must be a list of positive numbers"),
    ],
)
def test_optimizers_reports_invalid_flags_in_one_line(flag, message):
    done = in_process("optimizers", flag)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
