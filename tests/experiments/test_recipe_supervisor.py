"""Tests for the recipe of gcloud that watches a TPU: bash runs it against programs that record their calls."""

import fcntl
import stat
import time

import pytest

from tests.experiments.launch_machines import GCLOUD, RECORD, Machines
from tests.experiments.test_recipes import SECRET, recipe

INCLUDED = ("--include=*.json", "--include=*.safetensors", "--include=*.jinja")


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path)


def supervised(**more):
    return recipe("gcloud", restart_on_preemption=True, **more)


def set_program(machines, *cases):
    """Sets what each run of the program does; the last case holds for all further runs."""
    arms = [f"{number}) {then} ;;\n" for number, then in enumerate(cases[:-1])] + [f"*) {cases[-1]} ;;\n"]
    count = 'runs=$(cat "$HOME/runs" 2>/dev/null || echo 0)\necho $((runs + 1)) >"$HOME/runs"\n'
    program = f'{RECORD}{count}case "$runs" in\n{"".join(arms)}esac\n'
    machines.write(machines.home / "mass_jax/.venv/bin/python", program)


def before_gcloud(machines, script):
    """Lets a script run before the program gcloud; it may exit."""
    machines.add("bin", "gcloud", script + GCLOUD)


def called(machines, *words):
    """Returns the calls of gcloud that have one of the words."""
    return [call for call in machines.calls("gcloud") if {*words} & {*call}]


def test_supervisor_recreates_a_preempted_tpu(machines):
    script = supervised(max_restarts=2, spot=True, stage="org/name@v1", variables=["A"])
    # The first run loses its TPU, the second one is interrupted, the third one finishes.
    set_program(machines, f"echo SUSPENDED >{machines.state}; exit 143", "exit 143", "exit 0")
    output = machines.run(script, "supervise", {"A": "1"})
    assert "the TPU is ABSENT; creating it" in output
    assert "the TPU is SUSPENDED; creating it" in output
    assert "finished; deleting the TPU" in output
    queued = [" ".join(call) for call in machines.calls("gcloud") if "queued-resources" in call]
    assert [call.split()[3] for call in queued if "describe" not in call] == ["create", "delete", "create", "delete"]
    assert all("--spot" in call.split() for call in queued if "create" in call.split())
    assert len(machines.calls("python")) == 3
    assert machines.calls("hf")[0] == ["download", "--revision=v1", *INCLUDED, "--local-dir=", "--", "org/name"]
    assert not machines.state.exists()


@pytest.mark.parametrize(
    ("program", "message", "runs"),
    [("exit 1", "the command failed; see the action logs", 1), ("exit 143", "gave up after 2 restarts", 3)],
)
def test_supervisor_gives_up(machines, program, message, runs):
    script = supervised(max_restarts=2)
    set_program(machines, program)
    assert message in machines.run(script, "supervise", status=1)
    assert len(machines.calls("python")) == runs
    assert machines.state.exists()  # the TPU, whose logs may be needed


def test_supervisor_counts_creations_that_fail(machines):
    before_gcloud(machines, 'case "$*" in *"queued-resources create"*) exit 1 ;; esac\n')
    assert "gave up after 2 restarts" in machines.run(supervised(max_restarts=2), "supervise", status=1)
    assert len(called(machines, "create")) == 3


def test_supervisor_repairs_an_installation_that_failed(machines):
    fails = 'if [[ $* = *" ssh "* && ! -e $STATE.failed ]]; then touch "$STATE.failed"; exit 255; fi\n'
    before_gcloud(machines, fails)
    output = machines.run(supervised(stage="org/name", max_restarts=1), "supervise")
    assert "finished; deleting the TPU" in output
    assert (len(called(machines, "create")), len(machines.calls("hf")), len(machines.calls("python"))) == (1, 1, 1)


def test_supervisor_restarts_when_one_host_of_two_was_interrupted(machines):
    set_program(machines, "exit 143", "exit 0")
    result = machines.home / "mass_launch/mass/result"
    other = f'case "$*" in *"host.sh status"*) [ "$(cat {result} 2>/dev/null)" != 143 ] || echo failed ;; esac\n'
    before_gcloud(machines, other)
    assert "finished; deleting the TPU" in machines.run(supervised(), "supervise")
    assert len(machines.calls("python")) == 2


def test_supervisor_ends_when_a_running_tpu_was_deleted(machines):
    variables = "".join(f"export {name}='{value}'; " for name, value in machines.environment().items())
    set_program(machines, f"{variables} bash {machines.root}/recipe.sh delete; exit 143")
    assert machines.run(supervised(), "supervise").endswith("the TPU was deleted\n")
    assert len(called(machines, "create")) == 1


WAITS_AND_ENDS = """
if [[ $* = *"queued-resources describe"* && -e $STATE ]]; then
  echo WAITING_FOR_RESOURCES >"$STATE"
  echo >>"$STATE.looks"
  [ "$(wc -l <"$STATE.looks")" -lt 3 ] || rm "$STATE"
fi
"""


def test_supervisor_ends_when_a_requested_tpu_was_deleted(machines):
    before_gcloud(machines, WAITS_AND_ENDS)
    assert machines.run(supervised(), "supervise").count("the TPU is ABSENT; creating it") == 1
    assert len(called(machines, "create")) == 1


def test_delete_stops_when_the_supervisor_may_exist(machines):
    script = supervised()
    machines.run(script, "create")
    (machines.root / "state.supervisor").touch()
    before_gcloud(machines, 'case "$*" in *"instances describe"*) echo "ERROR: no connection" >&2; exit 1 ;; esac\n')
    said = machines.run(script, "delete", status=1)
    assert "the supervisor cannot be looked up: ERROR: no connection" in said
    assert called(machines, "delete") == []
    before_gcloud(machines, "")
    machines.run(script, "delete")
    assert len(called(machines, "delete")) == 2
    machines.run(script, "delete")  # nothing is left
    assert len(called(machines, "delete")) == 2


def test_supervisor_keeps_a_tpu_whose_state_is_unknown(machines):
    looks = (
        'echo >>"$STATE.looks"\n[ "$(wc -l <"$STATE.looks")" -gt 3 ] || { echo "ERROR: UNAVAILABLE" >&2; exit 1; }\n'
    )
    said = 'case "$*" in *describe*) echo "WARNING: old" >&2; echo ACTIVE ;; *" ssh "*) echo stopped ;; esac\n'
    machines.add("bin", "gcloud", looks + said)
    assert "stopped by the action stop" in machines.run(supervised(), "supervise")
    assert len(called(machines, "describe")) == 4
    assert called(machines, "create", "delete") == []


def test_supervisor_waits_for_a_machine_that_boots(machines):
    machines.add("bin", "sleep")
    machines.add("host", "gcloud", 'case "$*" in *describe*) echo SUSPENDED ;; esac\n')
    script = supervised(max_restarts=0)
    before_gcloud(machines, 'case "$*" in *" ssh "*) exit 255 ;; esac\n')
    assert "run the action supervisor again" in machines.run(script, "supervisor", status=1)
    assert machines.calls("sleep") == [["10"]] * 29
    boots = 'case "$*" in *" ssh "*) [ -e "$STATE.on" ] || { touch "$STATE.on"; exit 255; } ;; esac\n'
    before_gcloud(machines, boots)
    machines.run(script, "supervisor")
    assert len(machines.calls("sleep")) == 30
    assert len(called(machines, "create")) == 1


def test_supervisor_runs_detached_on_a_small_machine(machines):
    machines.add("host", "gcloud", 'case "$*" in *describe*) echo SUSPENDED ;; esac\n')  # as the supervisor sees it
    script = supervised(max_restarts=0, variables=["A"])
    output = machines.run(script, "supervisor", {"A": SECRET})
    directory = machines.home / "mass_launch/mass"
    for _ in range(100):
        if "gave up after 0 restarts" in (directory / "log").read_text():
            break
        time.sleep(0.05)
    else:
        raise AssertionError((directory / "log").read_text())
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir() if path.name != "log"} == {
        "environment": 0o600,
        "lock": 0o600,
        "recipe.sh": 0o600,
    }
    assert "s3cret" not in output + machines.record.read_text()
    with (directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a supervise that still runs
        assert "already running" in machines.run(script, "supervisor", {"A": SECRET})
    created = next(call for call in machines.calls("gcloud") if call[:3] == ["compute", "instances", "create"])
    assert created[3] == "mass-supervisor"
    machines.add("bin", "gcloud")  # both machines exist now
    machines.run(script, "delete")
    deleted = [call[:4] for call in machines.calls("gcloud") if "delete" in call]
    assert deleted[-2:] == [["compute", "instances", "delete", "mass-supervisor"],
                            ["compute", "tpus", "queued-resources", "delete"]]  # fmt: skip
