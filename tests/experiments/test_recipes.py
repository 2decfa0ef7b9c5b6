"""Tests for recipes: scripts that bash runs against programs that record their calls."""

import dataclasses
import json
import os
import re
import signal
import stat
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.launching.mounts import Mount
from experiments.launching.recipes import REMOTE, render
from experiments.presets import tiny
from tests.commands import in_process
from tests.experiments.launch_machines import KUBECTL, RECORD, Machines, bash

GIVEN = {"name": "mass", "zone": "z", "cluster": "c", "image": "i", "repository": "URL", "gpus_per_node": 2}
OF = {
    "gcloud": {"topology": "v5e:4x4"},
    "xpk": {"topology": "v5e:4x4"},
    "slurm": {},
    "skypilot": {"accelerators": "H100:8"},
}
SECRET = "hf_s3cret'\" $(touch pwned)"
HOSTILE = [
    "--workdir=/mnt/a b",
    "--x='\"",
    "--y=$(touch pwned)`touch pwned`$HOME$$",
    "--z=\\;&|>#*?~",
    "--emoji=é☃",
    "",
]


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path)


def recipe(backend, arguments=(), **more):
    return render(backend, "experiments.train", arguments, **GIVEN | OF[backend] | more)


def started(machines, backend, script, **variables):
    """Runs the action `start`, and then what the backend would run; returns the program's arguments and output."""
    output = machines.run(script, "start", variables)
    if backend == "gcloud":
        wait_for(machines, "finished", script, variables)
        (call,) = machines.calls("python")
    elif backend == "slurm":
        (job,) = machines.checkout.glob("job")
        output += bash(job.read_text(), machines, machines.checkout, SLURM_JOB_ID="7").stderr
        (call,) = machines.calls("srun")
    elif backend == "xpk":
        (call,) = [call for call in machines.calls("xpk") if call[:2] == ["workload", "create"]]
        command = next(part for part in call if part.startswith("--command=")).removeprefix("--command=")
        # As Kubernetes and xpk do: $$ becomes $, and the command runs in a subshell.
        command = re.sub(r"\$\$|\$\((\w+)\)", lambda found: "$" if found[0] == "$$" else "EXPANDED", command)
        output += bash(f"({command}) & wait $!", machines, machines.checkout).stderr
        (call,) = machines.calls("python")
    else:
        task = json.loads((machines.root / "task.yaml").read_text())
        output += bash(task["run"], machines, machines.checkout, SKYPILOT_NUM_NODES="1").stderr
        (call,) = machines.calls("python")
    return call, output


def wait_for(machines, state, script, variables=None):
    for _ in range(100):
        if machines.run(script, "status", variables).strip().endswith(state):
            return
        time.sleep(0.05)
    raise AssertionError(machines.run(script, "status", variables))


def keep_files(machines):
    """Lets sbatch and sky keep the file that they were given."""
    machines.add("bin", "sbatch", "cat >job\n")
    machines.add("bin", "sky", f'cp "${{@: -1}}" {machines.root}/task.yaml\n')


def program_of(call):
    return call[call.index("experiments.train") + 1 :]


@pytest.mark.parametrize("backend", REMOTE)
def test_hostile_arguments_reach_the_program_unchanged(machines, backend):
    keep_files(machines)
    script = recipe(backend, HOSTILE)
    if backend == "gcloud":
        machines.run(script, "create")
    call, _ = started(machines, backend, script)
    expected = HOSTILE if backend == "skypilot" else [*HOSTILE, "--coordinator=auto"]
    assert program_of(call) == expected
    assert not list(machines.root.rglob("pwned"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=20),
    backend=st.sampled_from(REMOTE),
)
def test_any_printable_value_is_one_word(tmp_path_factory, text, backend):
    machines = Machines(tmp_path_factory.mktemp("machines"))
    keep_files(machines)
    script = recipe(backend, [f"--workdir={text}"], repository=text, image=text, infra=text)
    if backend == "gcloud":
        (machines.home / "mass_jax").rename(machines.home / "cloned")
        machines.add("host", "git", 'cp -r "$HOME/cloned" "$HOME/mass_jax"\n')
        machines.run(script, "create")
        (clone,) = machines.calls("git")
        assert clone[:3] == ["clone", "--", text]
    call, _ = started(machines, backend, script)
    assert program_of(call)[0] == f"--workdir={text}"


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\x85b", "a\u2028b", "\x1b[31m"])
def test_unprintable_values_are_refused(text):
    for more in ({"repository": text}, {"mounts": [Mount("/mnt", text)]}, {"storage": [text]}):
        with pytest.raises(ValueError, match="not printable"):
            recipe("gcloud", **more)
    with pytest.raises(ValueError, match="not printable"):
        recipe("slurm", [text])


@pytest.mark.parametrize("backend", REMOTE)
def test_secrets_stay_in_files_of_mode_600(machines, backend):
    keep_files(machines)
    script = recipe(backend, ["--workdir=/w"], variables=["HF_TOKEN"])
    assert SECRET not in script
    variables = {"HF_TOKEN": SECRET}
    copies = '[ "$1 $2" != "create secret" ] || cp -p "${5#*=}"/* "${RECORD%/*}/home"\n'
    machines.add("bin", "kubectl", KUBECTL + copies)
    output = machines.run(script, "create", variables)
    for directory in (machines.home / "mass_jax", machines.checkout):
        machines.write(directory / ".venv/bin/python", RECORD + 'printf %s "$HF_TOKEN" >"${RECORD%/*}/seen"\n')
    machines.add("bin", "srun", 'printf %s "$HF_TOKEN" >"${RECORD%/*}/seen"\n')
    _, more = started(machines, backend, script, **variables)
    recorded = machines.record.read_text()
    assert "s3cret" not in recorded + output + more
    files = [path for path in machines.root.rglob("*") if path.is_file() and "s3cret" in path.read_text()]
    files = [path for path in files if path.name != "seen"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files), files
    if backend in ("gcloud", "slurm"):
        assert (machines.root / "seen").read_text() == SECRET
        assert [path.name for path in files] == ["environment"]
    elif backend == "xpk":
        assert [path.read_text() for path in files] == [SECRET]  # kubectl got a file named as the variable
        assert [path.name for path in files] == ["HF_TOKEN"]
        assert "experiments.launching.kubernetes_secret" in recorded
    else:
        assert files == []
        assert "--secret=HF_TOKEN" in machines.calls("sky")[0]
    action = "create" if backend == "xpk" else "start"
    assert "HF_TOKEN is not set; export it first" in machines.run(script, action, status=1)


@pytest.mark.parametrize(
    ("backend", "action", "program"), [("gcloud", "start", "gcloud"), ("xpk", "create", "kubectl")]
)
def test_secrets_do_not_survive_an_interrupt(machines, backend, action, program):
    waits = 'case "$*" in *scp*|"create secret"*) touch "${RECORD%/*}/waits"; exec sleep 50 ;; esac\n'
    machines.add("bin", program, KUBECTL + waits)
    with machines.begin(recipe(backend, variables=["HF_TOKEN"]), action, {"HF_TOKEN": SECRET}) as process:
        while not (machines.root / "waits").exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert list(machines.root.glob("tmp.*"))
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        assert process.wait(timeout=20) != 0
    assert not list(machines.root.glob("tmp.*"))


@pytest.mark.parametrize("action", ["create", "logs", "delete"])
def test_xpk_calls_kubectl_on_the_cluster_only(machines, action):
    script = recipe("xpk", variables=["A"])
    machines.add("bin", "xpk", '[ "$2" != list ] || exit 1\n')
    machines.run(script, action, {"A": "1"}, status=1)
    assert machines.calls("kubectl") == []
    machines.add("bin", "xpk")
    machines.add("bin", "kubectl", "echo gke_p_us_other\n")
    assert "kubectl has the context gke_p_us_other" in machines.run(script, action, {"A": "1"}, status=1)
    assert machines.calls("kubectl") == [["config", "current-context"]]


@pytest.mark.parametrize("queued", [False, True])
def test_gcloud_create_can_be_repeated(machines, queued):
    script = recipe("gcloud", restart_on_preemption=queued)
    machines.add("host", "git", "exit 1\n")
    (machines.home / "mass_jax").rename(machines.home / "cloned")
    machines.run(script, "create", status=1)
    machines.add("host", "git", 'cp -r "$HOME/cloned" "$HOME/mass_jax"\n')
    machines.run(script, "launch")
    wait_for(machines, "finished", script)
    assert sum("create" in call for call in machines.calls("gcloud")) == 1


def test_launcher_passes_values_in_the_environment(machines, monkeypatch):
    keep_files(machines)
    for name, value in machines.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(machines.checkout)
    (machines.checkout / "env").write_text("# tokens\nexport A='x y'\n\nB=2\n")
    flags = ["--backend=slurm", "--name=a/../b", "--env_file=env", "--env=B=3", "--restart_on_preemption"]
    flags += ["--gpus_per_node=4", "--num_nodes=2", "--price_per_chip_hour=2.5"]
    done = in_process("launch", *flags, "--nodry_run", "--", "--preset=tiny", "--workdir=runs/two")
    assert (done.returncode, done.stderr) == (0, "")
    (environment,) = (machines.checkout / ".mass_jax").glob("*/environment")
    assert environment.read_text() == "export A=x\\ y\nexport B=3\n"
    job = (machines.checkout / "job").read_text()
    machines.add("bin", "srun", "exit 143\n")  # stopped by SIGTERM before the time limit
    assert bash(job, machines, machines.checkout, SLURM_JOB_ID="7").returncode == 143
    assert machines.calls("scontrol") == [["requeue", "7"]]
    machines.run(recipe("slurm", name="a/../b"), "stop")
    bash(job, machines, machines.checkout, SLURM_JOB_ID="7")
    assert len(machines.calls("scontrol")) == 1  # a stopped job is not requeued
    machines.run(recipe("slurm", name="a/../b"), "delete")
    assert not list((machines.checkout / ".mass_jax").iterdir())


def test_gcloud_run_survives_the_connection_and_saves_on_stop(machines):
    script = recipe("gcloud", mounts=[Mount("/mnt/a b", "10.0.0.2:/s"), Mount("/mnt/c", "gs://d")])
    machines.run(script, "create")
    assert ["mount", "-t", "nfs", "--", "10.0.0.2:/s", "/mnt/a b"] in machines.calls("sudo")
    assert machines.calls("gcsfuse") == [["--implicit-dirs", "--", "d", "/mnt/c"]]
    saves = "trap 'echo saved; exit 143' TERM\necho began\nfor _ in {1..600}; do sleep 0.05; done\n"
    machines.write(machines.home / "mass_jax/.venv/bin/python", RECORD + saves)
    assert "absent" in machines.run(script, "status")
    machines.run(script, "start")
    wait_for(machines, "running", script)
    assert "already running" in machines.run(script, "start")
    directory = machines.home / "mass_launch/mass"
    while "began" not in (directory / "log").read_text():  # a stop before that leaves no result
        time.sleep(0.02)
    machines.run(script, "stop")
    assert "stopped" in machines.run(script, "status")
    assert (directory / "result").read_text() == "143\n"
    log = (directory / "log").read_text().splitlines()
    assert (log[0], log[-1]) == ("began", "saved")
    machines.run(script, "delete")
    assert ["compute", "tpus", "tpu-vm", "delete", "mass", "--zone=z", "--quiet"] in machines.calls("gcloud")


def test_skypilot_shares_the_address_of_the_first_node(machines):
    keep_files(machines)
    machines.run(recipe("skypilot", num_nodes=2), "start")
    task = json.loads((machines.root / "task.yaml").read_text())
    nodes = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    bash(task["run"], machines, machines.checkout, **nodes)
    (call,) = machines.calls("python")
    assert call[-3:] == ["--coordinator=10.0.0.1:8476", "--num_processes=2", "--process_id=1"]


@pytest.mark.parametrize("backend", REMOTE)
def test_recipe_prints_cost_and_usage(machines, backend):
    script = recipe(backend, price_per_chip_hour=0.5, num_nodes=2)
    chips = {"gcloud": 16, "xpk": 16, "slurm": 4, "skypilot": 16}[backend]
    assert machines.run(script, "cost").startswith(f"{chips} chips x $0.50 = ${chips / 2:.2f} per hour")
    assert machines.run(script, "launhc", status=2).startswith("usage: bash RECIPE launch|create|")
    assert machines.run(script, "", status=2)
    assert machines.record.read_text() == ""


def test_price_table_is_dated(machines):
    said = machines.run(recipe("gcloud"), "cost")
    assert said.startswith("16 chips x $1.20 = $19.20 per hour (on demand")
    assert re.search(r"read on 2026-\d\d-\d\d", said)
    assert "give --price_per_chip_hour" in machines.run(recipe("xpk", topology="tpu7x:2x2x1"), "cost")
    assert machines.run(recipe("slurm"), "cost").startswith("2 chips, whose price is unknown")


@pytest.mark.parametrize(
    ("argument", "extras"),
    [
        ("--workdir=gs://b/run", "tpu,math,gcs"),
        ("--workdir=/mnt/shared/run", "tpu,math"),
        ("--tracker=none", "tpu,math"),
        ("--tracker=wandb, tensorboard", "tpu,math,tensorboard,wandb"),
        ("--task=reasoning_gym", "tpu,math,reasoning-gym"),
        ("--preset=unknown", "tpu,math"),  # refused later, with a message
    ],
)
def test_hosts_install_what_the_flags_need(argument, extras):
    assert f"mass_jax[{extras}]" in recipe("gcloud", [argument])
    assert f"'.[{extras}]'" in recipe("skypilot", [argument], accelerators="", topology="v5e:2x4")


def test_hosts_install_what_the_preset_needs(monkeypatch):
    chosen = dataclasses.replace(tiny.config(), task="reasoning_gym", tracker=("trackio",))
    monkeypatch.setattr(tiny, "config", lambda: chosen)
    assert "mass_jax[tpu,math,reasoning-gym,trackio]" in recipe("gcloud", ["--preset=tiny"])
    assert "mass_jax[tpu,math,reasoning-gym,trackio]" in recipe("gcloud", [])  # the default preset
    assert "mass_jax[tpu,math]" in recipe("gcloud", ["--task=math", "--tracker=none"])


def test_skypilot_caches_the_mount_of_the_local_workdir():
    arguments = ["--workdir=s3://b/run", "--local_workdir=/mnt/b/run"]
    assert '"mode": "MOUNT_CACHED"' in recipe("skypilot", arguments, mounts=[Mount("/mnt/b", "s3://b")])
