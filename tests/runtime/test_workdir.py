"""Tests for mass_jax.runtime.workdir."""

import pytest

from mass_jax.errors import UserError
from mass_jax.runtime import check_workdir, claim_workdir, read_settings, workdir_path, write_atomically


def test_check_workdir_refuses_other_settings(tmp_path):
    workdir = tmp_path / "run"
    check_workdir(workdir, '{"steps": 3, "gamma": 0.1}')
    assert not workdir.exists()  # checking writes nothing
    claim_workdir(workdir, '{"steps": 3, "gamma": 0.1}')
    check_workdir(workdir, '{"gamma": 0.1, "steps": 3}')
    with pytest.raises(ValueError, match=r"started with gamma=0\.1, now it is 0\.5; choose another --workdir"):
        check_workdir(workdir, '{"steps": 3, "gamma": 0.5}')


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_check_workdir_names_damaged_config(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        check_workdir(tmp_path, "{}", replace=True)


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '"steps"', "3.5", "true", "null"])
def test_check_workdir_refuses_other_json(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json holds .* instead of an object of settings") as caught:
        check_workdir(tmp_path, "{}", replace=True)
    assert "\n" not in str(caught.value)


def test_check_workdir_names_config_directory(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        check_workdir(tmp_path, "{}")


def test_check_workdir_refuses_unknown_content(tmp_path):
    (tmp_path / "seed3" / "mass").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds 'seed3' but no config\.json, so its settings are unknown"):
        check_workdir(tmp_path, "{}", replace=True)
    with pytest.raises(UserError, match="holds 'seed3'"):
        claim_workdir(tmp_path, "{}")
    assert not (tmp_path / "config.json").exists()


def test_check_workdir_accepts_hidden_files(tmp_path):
    (tmp_path / ".lock").write_text("1")
    check_workdir(tmp_path, "{}")


def test_check_workdir_frees_named_settings(tmp_path):
    claim_workdir(tmp_path, '{"steps": 3, "methods": ["base"]}')
    (tmp_path / "table.json").write_text("{}")
    claim_workdir(tmp_path, '{"steps": 3, "methods": ["mass"]}', free=("methods",), replace=True)
    assert read_settings(tmp_path / "config.json") == {"steps": 3, "methods": ["base"]}
    with pytest.raises(UserError, match="steps=3, now it is 4"):
        check_workdir(tmp_path, '{"steps": 4, "methods": ["base"]}', free=("methods",))


@pytest.mark.parametrize("name", ["on_weak_signal", "signal_every", "drift_every", "tracker"])
@pytest.mark.parametrize("replace", [False, True])
def test_workdir_accepts_other_monitoring(tmp_path, name, replace):
    before = f'{{"steps": 3, "{name}": 7}}'
    claim_workdir(tmp_path, before)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    claim_workdir(tmp_path, f'{{"steps": 3, "{name}": 0}}', replace=replace)
    claim_workdir(tmp_path, '{"steps": 3}')
    assert (tmp_path / "config.json").read_text() == before + "\n"
    with pytest.raises(UserError, match="started with steps=3, now it is 4"):
        check_workdir(tmp_path, f'{{"steps": 4, "{name}": 0}}', replace=replace)


def test_claim_workdir_replaces_settings_without_results(tmp_path):
    claim_workdir(tmp_path, '{"steps": 3}')
    run = tmp_path / "seed0" / "mass"
    (run / "checkpoints" / "2.orbax-checkpoint-tmp-7").mkdir(parents=True)
    (run / "checkpoints" / "2.orbax-checkpoint-tmp-7" / "part").write_text("cut off")
    (run / "metrics.jsonl").touch()
    claim_workdir(tmp_path, '{"steps": 4}', replace=True)
    assert read_settings(tmp_path / "config.json") == {"steps": 4}
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(UserError, match="started with steps=4, now it is 5"):
        claim_workdir(tmp_path, '{"steps": 5}', replace=True)


def test_check_workdir_refuses_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file; give a directory"):
        check_workdir(tmp_path / "run", "{}")


def test_workdir_path_refuses_url():
    """`pathlib` would create a local directory `gs:` on each host."""
    with pytest.raises(ValueError, match=r"--workdir=gs://bucket/run is a URL, which this command does not take; give"):
        workdir_path("gs://bucket/run")


def test_claim_workdir_refuses_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run cannot be written .Not a directory.; choose another"):
        claim_workdir(tmp_path / "file" / "run", "{}")


def test_write_atomically_keeps_old_contents_on_failure(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
