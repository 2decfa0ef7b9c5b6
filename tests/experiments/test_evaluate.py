"""Input checks of experiments.evaluate that need no run."""

import pytest

from mass_jax.config import Config
from tests.commands import in_process


@pytest.mark.parametrize("setting", ["sampler", "task"])
def test_evaluate_runs_no_code_that_settings_name(setting, tmp_path):
    code = tmp_path / "code.py"
    code.write_text("raise SystemExit('the code ran')\n")
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(Config(**{setting: f"{code}:Make"}).to_json())
    done = in_process("evaluate", f"--workdir={workdir}", "--mesh=data:8")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: the settings in {workdir} name code to run; pass --{setting}={code}:Make if you trust it"
    )


def test_evaluate_contacts_no_server_that_settings_name(tmp_path):
    url = "http://192.0.2.1/v1"
    (tmp_path / "config.json").write_text(Config(sampler="vllm", sampler_url=url).to_json())
    done = in_process("evaluate", f"--workdir={tmp_path}", "--mesh=data:8")
    assert done.returncode == 2
    refused = f"error: the settings in {tmp_path} name a server; pass --sampler_url={url} if you trust it"
    assert done.stderr.splitlines()[-1] == refused


def test_evaluate_imports_no_optimizer_that_settings_name(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("raise SystemExit('the code ran')\n")
    (tmp_path / "config.json").write_text(Config(inner_optimizer=f"{code}:make").to_json())
    done = in_process("evaluate", f"--workdir={tmp_path}", "--print_config")
    assert done.returncode == 2
    refused = f"error: the settings name code to run, inner_optimizer='{code}:make'"
    assert done.stderr.splitlines()[-1] == f"{refused}; pass --inner_optimizer again if you trust it"
