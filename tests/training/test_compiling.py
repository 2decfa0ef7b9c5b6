"""Announcements of compilation."""

import logging

from mass_jax.training.compiling import announce


def test_announce_logs_each_program_once(caplog):
    announce.cache_clear()
    with caplog.at_level(logging.INFO, "absl"):
        for program in ("the meta-step", "sampling", "the meta-step"):
            announce(program)
    assert [r.getMessage() for r in caplog.records] == ["compiling the meta-step ...", "compiling sampling ..."]
