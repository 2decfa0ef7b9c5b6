"""Recipes against the real xpk, SkyPilot, shellcheck and hadolint, which .ci/launching installs, without a cloud."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

from experiments.launching.mounts import Mount
from experiments.launching.recipes import REMOTE
from tests.experiments.launch_machines import Machines, bash
from tests.experiments.test_recipes import HOSTILE, keep_files, program_of, recipe

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parent.parent.parent
WITH_ALL = {
    "gcloud": {"restart_on_preemption": True, "spot": True},
    "xpk": {"storage": ["share"]},
    "slurm": {"restart_on_preemption": True},
    "skypilot": {"num_nodes": 2, "spot": True, "infra": "gcp/us-central1", "mounts": [Mount("/mnt/a", "gs://b")]},
}


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path)


def run(*command, cwd=None, **variables):
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", REMOTE)
def test_shellcheck_accepts_the_recipe(tmp_path, backend):
    more = WITH_ALL[backend] | {"variables": ["A", "B"], "stage": "org/name"}
    if backend == "gcloud":
        more["mounts"] = [Mount("/mnt/a", "gs://b"), Mount("/mnt/c", "10.0.0.2:/d")]
    for name, given in {"all": more, "none": {}}.items():
        path = tmp_path / f"{name}.sh"
        path.write_text(recipe(backend, ["--workdir=/w", "--model=/m"], **given))
        # Quoted values may contain $ (2016) and ~ (2088); the files that hosts source exist only there (1091).
        run("shellcheck", "--exclude=SC2016,SC2088,SC1091", str(path))


def test_xpk_runs_the_command_of_the_recipe(machines):
    machines.run(recipe("xpk", HOSTILE, num_slices=2, **WITH_ALL["xpk"]), "start")
    (arguments,) = machines.calls("xpk")
    manifest = machines.root / "manifest.yaml"
    dry = ["--dry-run", "--skip-validation", "--project=p", "--zone=us-west4-a", f"--output-manifest-file={manifest}"]
    run("xpk", *arguments, *dry)
    (job,) = yaml.safe_load(manifest.read_text())["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert (job["replicas"], pod["terminationGracePeriodSeconds"]) == (2, 120)
    rules = job["template"]["spec"]["podFailurePolicy"]["rules"]
    restarted = next(rule["onExitCodes"] for rule in rules if "onExitCodes" in rule)
    assert restarted["operator"] == "NotIn"
    assert 143 in restarted["values"]  # a run that saved after SIGTERM restarts
    container = next(container for container in pod["containers"] if container["name"] == "jax-tpu")
    script = container["command"][2].replace("$$", "$")  # as Kubernetes does
    machines.add("bin", "sleep", "exec /bin/sleep 0.05\n")
    done = bash(script, machines, machines.checkout)
    assert done.returncode == 0, done.stderr
    (call,) = machines.calls("python")
    assert program_of(call) == [*HOSTILE, "--coordinator=auto"]


@pytest.mark.parametrize("action", ["status", "stop"])
def test_xpk_accepts_the_other_actions(machines, action):
    machines.run(recipe("xpk"), action)
    (arguments,) = machines.calls("xpk")
    run("xpk", *arguments, "--dry-run", "--project=p", "--zone=us-west4-a")


SKY = """
import json, os, sys
import sky
from sky.client.cli import command
path, calls = sys.argv[1], json.loads(sys.argv[2])
task = sky.Task.from_yaml(path)
(resources,) = task.resources
names = {"launch": command.jobs_launch, "logs": command.jobs_logs, "cancel": command.jobs_cancel}
for call in calls:
    parsed = names[call[1]].make_context(call[1], [part.replace("TASK", path) for part in call[2:]]).params
    assert parsed["name"] == "mass", parsed
print(json.dumps({
    "nodes": task.num_nodes, "accelerators": resources.accelerators, "spot": resources.use_spot, "run": task.run,
    "region": resources.region,
}))
"""


def test_skypilot_accepts_the_task_and_commands(machines, tmp_path):
    keep_files(machines)
    script = recipe("skypilot", HOSTILE, variables=["HF_TOKEN"], stage="org/name", **WITH_ALL["skypilot"])
    machines.run(script, "start", {"HF_TOKEN": "hf_"})
    for action in ("logs", "stop"):
        machines.add("bin", "sky")
        machines.run(script, action)
    calls = machines.calls("sky")
    calls[0][-1] = "TASK"
    task = json.loads((machines.root / "task.yaml").read_text())
    assert task["secrets"] == {"HF_TOKEN": None}
    del task["secrets"]  # the command line gives the value, which is required
    path = tmp_path / "without_secrets.yaml"
    path.write_text(json.dumps(task))
    python = pathlib.Path(shutil.which("sky")).parent / "python"
    said = run(str(python), "-c", SKY, str(path), json.dumps(calls), HF_TOKEN="hf_", HOME=str(tmp_path), cwd=tmp_path)
    found = json.loads(said.splitlines()[-1])
    assert found == {"nodes": 2, "accelerators": {"H100": 8}, "spot": True, "run": task["run"], "region": "us-central1"}


def test_hadolint_accepts_the_dockerfile():
    run("hadolint", str(ROOT / "Dockerfile"))
