"""Launching: the printed commands, and real local processes."""

import shlex
import subprocess
import sys

import pytest

from experiments.launch import accelerator, commands, run_together

GIVEN = {"name": "mass", "zone": "z", "topology": "v5e:4x4", "num_slices": 2, "cluster": "c", "image": "i",
         "spot": True, "repository": "URL", "num_processes": 2, "num_nodes": 2, "gpus_per_node": 8,
         "port": 9}  # fmt: skip
ARGUMENTS = ["--preset=tiny", "--workdir=with space"]


def test_local_processes_know_each_other():
    first, second = commands("local", "experiments.train", ARGUMENTS, **GIVEN)
    assert first[1:] == ["-m", "experiments.train", *ARGUMENTS, "--coordinator=127.0.0.1:9", "--num_processes=2",
                         "--process_id=0"]  # fmt: skip
    assert second[-1] == "--process_id=1"
    assert commands("local", "m", [], **GIVEN | {"num_processes": 1})[0][1:] == ["-m", "m"]


@pytest.mark.parametrize("backend", ["gcloud", "xpk", "slurm"])
def test_what_runs_there_is_quoted_once_and_finds_its_cluster(backend):
    last = commands(backend, "experiments.train", ARGUMENTS, **GIVEN | {"num_slices": 1})[-1]
    inner = last[-1].partition("=")[2]
    assert shlex.split(inner)[-3:] == [*ARGUMENTS, "--coordinator=auto"]


def test_under_slurm_each_gpu_has_a_process():
    (submit,) = commands("slurm", "m", [], **GIVEN)
    assert {"--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=8", "--signal=TERM@120"} <= {*submit}
    (submit,) = commands("slurm", "m", [], **GIVEN | {"gpus_per_node": 0})
    assert "--ntasks-per-node=1" in submit
    assert not any("gpus" in option for option in submit)


def test_names_of_accelerators():
    assert [accelerator(t) for t in ("v5e:4x4", "v5p:4x4x4", "v4:2x2x1", "v6e:8x8", "tpu7x:2x2x1")] == [
        "v5litepod-16",
        "v5p-128",
        "v4-8",
        "v6e-64",
        "tpu7x-8",
    ]
    for mistyped in ("v5e", "v5e:", "v5e:4x", "v5e:0x4", "v9:4x4"):
        with pytest.raises(ValueError, match=f"'{mistyped}' is unknown; write v4, v5e"):
            accelerator(mistyped)


def test_what_each_host_installs_is_quoted_and_its_own_python():
    """The hosts' own Python is 3.10, which JAX has left behind."""
    _, install, run = commands("gcloud", "m", [], **GIVEN | {"num_slices": 1, "repository": "https://a/b; rm -rf /"})
    lines = install[-1].removeprefix("--command=").split(" && ")
    assert shlex.split(lines[1]) == ["git", "clone", "https://a/b; rm -rf /", "mass_jax"]
    assert "--python=3.12" in lines[2]
    assert ".venv/bin/python -m m --coordinator=auto" in run[-1]


def test_gcloud_has_one_slice():
    with pytest.raises(ValueError, match="--num_slices=2: gcloud starts one slice; use --backend=xpk"):
        commands("gcloud", "m", [], **GIVEN)


@pytest.mark.parametrize(
    ("backend", "name"), [("gcloud", "zone"), ("gcloud", "repository"), ("xpk", "cluster"), ("slurm", "name")]
)
def test_what_is_missing_is_named(backend, name):
    with pytest.raises(ValueError, match=f"--backend={backend} needs --{name}"):
        commands(backend, "m", [], **GIVEN | {name: ""})


def program(code):
    return [sys.executable, "-c", code]


def test_processes_end_together():
    assert run_together([program("pass"), program("pass")]) == 0
    waits = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(100)"
    assert run_together([program(waits), program("exit(3)")]) == 3


def test_by_default_it_only_prints():
    command = [sys.executable, "-m", "experiments.launch", "--num_processes=2", "--module=nowhere", "--", "--a=b c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0
    assert done.stdout.count("-m nowhere '--a=b c'") == 2
