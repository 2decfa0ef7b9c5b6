"""The command of --stage, run by the real command line of the hub's client against a local hub."""

import os
import pathlib
import subprocess
import sys

from huggingface_hub import constants

from experiments.launching.hosts import stage
from tests.hub_server import local_hub


def test_stage_downloads_only_what_a_run_reads(tmp_path, monkeypatch):
    read = {"config.json", "chat_template.jinja", "model.safetensors"}
    with local_hub(tmp_path, monkeypatch) as root:
        for name in (*read, "README.md", "original/consolidated.00.pth"):
            path = root / "models/org/name/main" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        command = stage("org/name", str(tmp_path / "model"), str(pathlib.Path(sys.executable).parent / "hf"))
        hub = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            ["bash", "-c", command], env=os.environ | hub, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "model").iterdir() if not path.name.startswith(".")} == read
