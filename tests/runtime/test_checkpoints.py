"""Tests for mass_jax.runtime.checkpoints, with real files."""

import contextlib
import math
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import Checkpoints, Feed, Interrupted, make_mesh


def state_of(value):
    return {"step": jnp.int32(value), "weights": jnp.full((3, 2), float(value)), "opt": (jnp.zeros(()), None)}


def damage(directory):
    """Truncates every file of a checkpoint."""
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def saved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step))
    return tmp_path


def test_restore_returns_none_without_checkpoints(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state_of(0)) is None


def test_checkpoints_keep_two_and_restore_newest(saved):
    with Checkpoints(saved) as checkpoints:
        step, state = checkpoints.restore(state_of(0))
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, state, state_of(3))
    assert sorted(int(path.name) for path in saved.iterdir() if path.name.isdigit()) == [2, 3]


def test_restore_skips_damaged_newest_checkpoint(saved):
    damage(saved / "3")
    with Checkpoints(saved) as checkpoints:
        step, state = checkpoints.restore(state_of(0))
    assert step == 2
    assert float(state["weights"][0, 0]) == 2


def test_restore_refuses_only_damaged_checkpoints(saved):
    for step in (2, 3):
        damage(saved / str(step))
    for _ in range(2):  # the second try fails too, since nothing was removed
        with Checkpoints(saved) as checkpoints, pytest.raises(UserError, match="remove it to start over"):
            checkpoints.restore(state_of(0))
    assert sorted(int(path.name) for path in saved.iterdir() if path.name.isdigit()) == [2, 3]


def test_restore_keeps_checkpoints_of_other_state(saved):
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(UserError, match="can be read"):
            checkpoints.restore(state_of(0) | {"new": jnp.zeros(2)})
        step, _ = checkpoints.restore(state_of(0))
    assert step == 3


@pytest.fixture
def small_disk(tmp_path):
    """Directory on a 1 MB disk, with a checkpoint of step 1."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=False).returncode:
        pytest.skip("mounting a small disk requires root")
    try:
        with Checkpoints(tmp_path / "saved") as checkpoints:
            checkpoints.save(1, SMALL)
        yield tmp_path / "saved"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


SMALL = {"x": np.ones(4, np.float32)}
LARGE = {"x": np.random.default_rng(0).random(2**20, np.float32)}


def test_save_reports_full_disk(small_disk):
    with pytest.raises(UserError, match=r"no space left for .*saved; step 1 is saved: free some space"):  # noqa: SIM117
        with Checkpoints(small_disk) as checkpoints:
            checkpoints.save(2, jax.tree.map(jnp.asarray, LARGE))
    with Checkpoints(small_disk) as checkpoints:
        step, state = checkpoints.restore(jax.tree.map(jnp.asarray, SMALL))
    assert step == 1
    np.testing.assert_array_equal(state["x"], SMALL["x"])


def test_exit_logs_failed_save_after_exception(small_disk, caplog):
    with contextlib.suppress(KeyError), Checkpoints(small_disk) as checkpoints:
        checkpoints.save(2, jax.tree.map(jnp.asarray, LARGE))
        raise KeyError
    assert "the last save failed: no space left for" in caplog.text


def test_exit_raises_failed_save_after_interrupt(small_disk):
    with pytest.raises(UserError, match="step 1 is saved"), Checkpoints(small_disk) as checkpoints:  # noqa: PT012
        checkpoints.save(2, jax.tree.map(jnp.asarray, LARGE))
        raise Interrupted(signal.SIGTERM)


def test_restore_works_on_another_mesh(tmp_path):
    state = {"q_proj": {"kernel": jnp.arange(2 * 8 * 8.0).reshape(2, 8, 8)}}
    layouts = [("fsdp:2,tensor:4", "", 1), ("", "data:2,fsdp:4", 8), ("data:2,fsdp:4", "fsdp:2", 2)]
    for saved, restored, count in layouts:
        directory = tmp_path / f"{saved} to {restored}"
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(1, placed(state, saved))
        with Checkpoints(directory) as checkpoints:
            _, found = checkpoints.restore(placed(jax.tree.map(jnp.zeros_like, state), restored))
        np.testing.assert_array_equal(found["q_proj"]["kernel"], state["q_proj"]["kernel"])
        assert len(found["q_proj"]["kernel"].sharding.device_set) == count


def placed(state, layout):
    if not layout:
        return jax.device_put(state, jax.devices()[0])
    devices = jax.devices()[: math.prod(int(axis.partition(":")[2]) for axis in layout.split(","))]
    return Feed(make_mesh(layout, devices)).place(state)
