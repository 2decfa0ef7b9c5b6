"""Tests for mass_jax.runtime.checksums: damage to files of a checkpoint."""

import json
import logging
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import Checkpoints
from mass_jax.runtime.checksums import CHECKSUMS


def state_of(step):
    return {"step": jnp.int32(step), "weights": jax.random.normal(jax.random.key(step), (40, 50))}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sound")
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of(step))
    return directory


@pytest.fixture
def saved(sound, tmp_path):
    return pathlib.Path(shutil.copytree(sound, tmp_path / "saved"))


def restored_step(directory):
    """Returns the restored step, after a comparison with the saved arrays."""
    with Checkpoints(directory) as checkpoints:
        step, state = checkpoints.restore(state_of(0))
    jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
    return step


def files_of(checkpoint, name="*"):
    return sorted(path for path in checkpoint.rglob(name) if path.is_file() and path.name != CHECKSUMS)


def test_restore_accepts_sound_checkpoint(saved, caplog):
    assert restored_step(saved) == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("seed", range(12))
def test_restore_notices_flipped_bytes(seed, saved, caplog):
    draw = random.Random(seed)
    path = draw.choice([path for path in files_of(saved / "2") if path.stat().st_size])
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 40))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    assert restored_step(saved) == 1
    assert f"2 cannot be used ({path.relative_to(saved / '2')} has changed since it was saved)" in caplog.text


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_restore_notices_truncated_file(keep, saved):
    path = max(files_of(saved / "2"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert restored_step(saved) == 1


def test_restore_notices_any_missing_file(sound, tmp_path, caplog):
    for i, name in enumerate(path.relative_to(sound) for path in files_of(sound / "2")):
        copy = pathlib.Path(shutil.copytree(sound, tmp_path / str(i)))
        (copy / name).unlink()
        assert restored_step(copy) == 1, name
    assert "No such file or directory" in caplog.text


def test_restore_ignores_extra_file(saved):
    (saved / "2" / "state" / ".nfs0001").write_text("left by a file system")
    assert restored_step(saved) == 2


def test_restore_warns_without_checksums(saved, caplog):
    (saved / "2" / CHECKSUMS).unlink()
    assert restored_step(saved) == 2
    assert "2 has no checksums; damage to its files would go unnoticed" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "null", "{}", '{"sha256": []}', '{"sha256": {}}', "[" * 100_000, "\xff"]
)
def test_restore_refuses_damaged_checksums(text, saved):
    (saved / "2" / CHECKSUMS).write_bytes(text.encode("latin1"))
    assert restored_step(saved) == 1


def test_restore_refuses_if_all_are_damaged(saved):
    for step in ("1", "2"):
        path = saved / step / CHECKSUMS
        listed = json.loads(path.read_text())
        listed["sha256"] = dict.fromkeys(listed["sha256"], "0" * 64)
        path.write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        restored_step(saved)
    assert {path.name for path in saved.iterdir()} >= {"1", "2"}


def test_every_save_has_checksums(saved):
    with Checkpoints(saved) as checkpoints:
        for step in (3, 4):
            checkpoints.save(step, state_of(step))
    for step in ("3", "4"):
        listed = json.loads((saved / step / CHECKSUMS).read_text())["sha256"]
        assert sorted(listed) == [str(path.relative_to(saved / step)) for path in files_of(saved / step)]
