"""One configuration a workdir; files whole or absent."""

import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import check_workdir, claim_workdir, workdir_path, write_atomically


def test_the_same_settings_may_come_back_and_others_are_refused_by_name(tmp_path):
    workdir = tmp_path / "run"
    check_workdir(workdir, '{"steps": 3, "gamma": 0.1}')
    assert not workdir.exists()  # looking claims nothing
    claim_workdir(workdir, '{"steps": 3, "gamma": 0.1}')
    check_workdir(workdir, '{"gamma": 0.1, "steps": 3}')
    with pytest.raises(ValueError, match=r"started with gamma=0\.1, now it is 0\.5; choose another --workdir"):
        check_workdir(workdir, '{"steps": 3, "gamma": 0.5}')


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        check_workdir(tmp_path, "{}")


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file; give a directory"):
        check_workdir(tmp_path / "run", "{}")


def test_a_bucket_is_no_directory():
    """`pathlib` would make of it a directory gs: on the disk of each host, which is lost with the host."""
    with pytest.raises(ValueError, match=r"--workdir=gs://bucket/run is no directory .* mount the bucket"):
        workdir_path("gs://bucket/run")


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run cannot be written .Not a directory.; choose another"):
        claim_workdir(tmp_path / "file" / "run", "{}")


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
