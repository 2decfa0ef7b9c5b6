"""Tests of experiments.screen: one-line errors. Measuring is tested in tests/evaluation/test_screen.py."""

import pytest

from tests.commands import in_process


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --workdir is missing; pass a directory, such as --workdir=runs/screen"),
        (
            ["--workdir={tmp}/a", "--screen_steps=2,x"],
            "error: --screen_steps=2,x must be a list of positive integers, like 2,4,8",
        ),
        (
            ["--workdir={tmp}/a", "--screen_problems=5", "--screen_groups=2"],
            "error: --screen_problems=5 is not a multiple of --screen_groups=2",
        ),
    ],
    ids=["workdir", "steps", "groups"],
)
def test_screen_reports_invalid_flags(flags, message, tmp_path):
    done = in_process("screen", *(flag.replace("{tmp}", str(tmp_path)) for flag in flags))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message)
