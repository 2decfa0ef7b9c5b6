"""Tests for mass_jax.runtime.paths: every path is restorable, or refused before anything is written."""

import os

import jax.numpy as jnp
import pytest

from mass_jax.errors import UserError
from mass_jax.runtime.checkpoints import Checkpoints
from mass_jax.runtime.paths import check_checkpoint_path
from mass_jax.runtime.workdir import workdir_path

NAMES = [
    *(
        "plain",
        "lr=[0.1]",
        "[",
        "]",
        "a\\b",
        "star*",
        "what?",
        "{1,2}",
        "with space",
        " edges ",
        "größe",
        "学習",
        "e\u0301",
    ),
    *("~", "~root", "$HOME", "%20", "#1", "a'b", 'a"b', "a;b", "a&b", "a|b", "<b>", "new\nline", "tab\t", "\x01"),
    *("gs:", "s3:", "file:", "c:drive", "-dash", ".hidden", "..."),
]


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_path_restores_or_is_refused(name, tmp_path):
    directory, state, refused = tmp_path / name / "run", {"a": jnp.arange(5.0)}, None
    try:
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(3, state)
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert "use another path" in refused
        assert not (tmp_path / name).exists()
        with pytest.raises(UserError):
            workdir_path(str(tmp_path / name))
        return
    workdir_path(str(tmp_path / name))
    with Checkpoints(directory) as checkpoints:
        step, found = checkpoints.restore({"a": jnp.zeros(5)})
    assert step == 3
    assert (found["a"] == state["a"]).all()


@pytest.mark.parametrize("name", ["plain", "with space", "größe", "{1,2}", "a'b", "~", "-dash"])
def test_check_accepts_ordinary_path(name, tmp_path):
    check_checkpoint_path(tmp_path / name)


def test_check_includes_working_directory(tmp_path, monkeypatch):
    (tmp_path / "v[1]").mkdir()
    monkeypatch.chdir(tmp_path / "v[1]")
    with pytest.raises(UserError, match=r"runs: checkpoints under a path with '\['"):
        workdir_path("runs")


def test_link_to_refused_directory_works(tmp_path):
    (tmp_path / "v[1]").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "v[1]")
    with Checkpoints(tmp_path / "link" / "run") as checkpoints:
        checkpoints.save(1, {"a": jnp.arange(2.0)})
    with Checkpoints(tmp_path / "link" / "run") as checkpoints:
        assert checkpoints.restore({"a": jnp.zeros(2)})[0] == 1


def test_check_refuses_non_utf8_path(tmp_path):
    with pytest.raises(UserError, match="need a path in UTF-8"):
        check_checkpoint_path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
