"""Dockerfile: its sources exist, its extras are those of setup.py, and it does not run as root."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from tests.test_packaging import load_setup

ROOT = pathlib.Path(__file__).parent.parent
INSTRUCTIONS = [
    (name, rest.strip())
    for name, rest in re.findall(
        r"^([A-Z]+) (.*)$",
        re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)),
        re.MULTILINE,
    )
]


def values(instruction):
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def test_copied_sources_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ignored[0] == "*"
    sources = [source for copy in values("COPY") for source in copy.split()[:-1]]
    assert len(sources) == 7
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    assert {source for source in sources if source.endswith(".py")} == {"setup.py"}


def test_image_runs_training_as_an_ordinary_user():
    (entry,) = values("ENTRYPOINT")
    command = json.loads(entry)
    assert command[:2] == ["python", "-m"]
    assert (ROOT / (command[2].replace(".", "/") + ".py")).is_file()
    assert values("USER") == ["${RUN_AS}"]
    assert "RUN_AS=mass" in values("ARG")


@pytest.mark.parametrize("further", ["", "gcs,wandb"])
@pytest.mark.parametrize("accelerator", ["cpu", "cuda12", "cuda13", "tpu", "cuda11"])
def test_installed_extras_are_declared(tmp_path, accelerator, further):
    assert "EXTRAS=" in values("ARG")
    for program in ("pip", "useradd"):
        path = tmp_path / program
        path.write_text('#!/bin/sh\necho "${0##*/} $*"\n')
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ACCELERATOR": accelerator, "EXTRAS": further}
    (run,) = values("RUN")
    done = subprocess.run(["sh", "-c", run], env=environment, capture_output=True, text=True, timeout=60, check=False)
    if accelerator == "cuda11":
        assert done.returncode == 2
        assert "ACCELERATOR=cuda11 is unknown; give cpu, cuda12, cuda13 or tpu" in done.stderr
        return
    extras = set(re.search(r"pip install .* \.\[(.*)\]", done.stdout)[1].split(","))
    declared = {extra for _, _, extra in load_setup().DEPENDENCIES}
    assert extras == {"math", accelerator, *further.split(",")} - {"cpu", ""}
    assert extras <= declared
    assert "useradd --create-home --uid 1000 mass" in done.stdout
