"""The command experiments.serve."""

import pytest

from tests.commands import in_process


@pytest.mark.parametrize("command", ["serve", "solve"])
def test_help_lists_flags_of_the_service(command):
    done = in_process(command, "--help")
    for name in ("workdir", "model", "policy", "log", "run", "compilation_cache"):
        assert f"--{name}: " in done.stdout
    assert "--[no]alsologtostderr" not in done.stdout
