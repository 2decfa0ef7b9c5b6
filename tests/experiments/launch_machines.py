"""Programs that stand in for cloud and cluster commands when a recipe runs; they record how they were called."""

import dataclasses
import pathlib
import signal
import subprocess
from collections.abc import Mapping

RECORD = 'printf "%s\\0" "$#" "${0##*/}" "$@" >>"$RECORD"\n'
ON_HOST = 'cd "$HOST_HOME" && exec env -i HOME="$HOST_HOME" PATH="$HOST_PATH" RECORD="$RECORD" MASS_POLL_SECONDS=0.05 '

# Copies files, runs commands on the one host of the TPU, and keeps the states of the TPU and supervisor in files.
GCLOUD = f"""
for argument in "$@"; do
  case "$argument" in --command=*) command=${{argument#--command=}} ;; esac
done
case "$*" in
  *scp*)
    for argument in "$@"; do case "$argument" in /*) source=$argument ;; *:*) target=${{argument#*:}} ;; esac; done
    cp -p "$source" "$HOST_HOME/$target"
    ;;
  *" ssh "*) {ON_HOST} bash -c "$command" ;;
  *"queued-resources create"* | *"tpu-vm create"*) [ ! -e "$STATE" ] && echo ACTIVE >"$STATE" ;;
  *"queued-resources delete"* | *"tpu-vm delete"*) rm "$STATE" ;;
  *"tpu-vm describe"*) [ -e "$STATE" ] ;;
  *"queued-resources describe"*)
    cat "$STATE" 2>/dev/null || {{
      echo "ERROR: NOT_FOUND: it was not found" >&2
      exit 1
    }}
    ;;
  *"instances create"*) [ ! -e "$STATE.supervisor" ] && touch "$STATE.supervisor" ;;
  *"instances delete"*) rm "$STATE.supervisor" ;;
  *"instances describe"*)
    [ -e "$STATE.supervisor" ] || {{
      echo "ERROR: The resource 'mass-supervisor' was not found" >&2
      exit 1
    }}
    ;;
esac
"""
KUBECTL = 'case "$*" in "config current-context") echo gke_p_us_c ;; esac\n'


@dataclasses.dataclass
class Machines:
    """A directory with the programs, the home directory of a host and the record of all calls."""

    root: pathlib.Path

    def __post_init__(self):
        self.record, self.home, self.checkout = self.root / "record", self.root / "home", self.root / "checkout"
        self.state = self.root / "state"
        for path in (
            self.home / "mass_jax/.venv/bin",
            self.checkout / ".venv/bin",
            self.root / "bin",
            self.root / "host",
        ):
            path.mkdir(parents=True)
        self.record.touch()
        self.add("bin", "gcloud", GCLOUD)
        self.add("bin", "kubectl", KUBECTL)
        for name in ("sbatch", "xpk", "sky", "scontrol", "squeue", "scancel", "hf", "python", "srun"):
            self.add("bin", name)
        for name in ("sudo", "git", "python3", "gcsfuse", "lsb_release"):
            self.add("host", name)
        self.add("host", "mountpoint", "exit 1\n")
        for directory in (self.home / "mass_jax/.venv/bin", self.checkout / ".venv/bin"):
            for name in ("python", "hf"):
                self.write(directory / name, RECORD)

    def add(self, directory: str, name: str, then: str = "") -> None:
        """Adds a program that records its arguments and then runs a script."""
        self.write(self.root / directory / name, RECORD + then)

    def write(self, path: pathlib.Path, script: str) -> None:
        path.write_text(f"#!/bin/bash\n{script}")
        path.chmod(0o755)

    def calls(self, program: str) -> list[list[str]]:
        """Returns the arguments of each call of a program."""
        found, rest = [], self.record.read_bytes().decode().split("\0")
        while rest and rest[0]:
            count = int(rest[0])
            if rest[1] == program:
                found.append(rest[2 : 2 + count])
            rest = rest[2 + count :]
        return found

    def environment(self, **variables: str) -> dict[str, str]:
        """Returns the environment in which a recipe runs."""
        own = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "HOST_PATH": f"{self.root / 'host'}:/usr/bin:/bin",
            "HOST_HOME": str(self.home),
            "RECORD": str(self.record),
            "STATE": str(self.state),
            "MASS_POLL_SECONDS": "0.05",
            "TMPDIR": str(self.root),
            "LC_ALL": "C.UTF-8",
        }
        return own | variables

    def begin(self, recipe: str, action: str, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts an action of a recipe in a process group of its own."""
        path = self.root / "recipe.sh"
        path.write_text(recipe)
        command = ["bash", str(path), action]
        # A shell starts background commands with SIGINT ignored. Bash then ignores it too, and its children; a signal
        # that Python handles has its default action in them.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            environment = self.environment(**variables)
            return subprocess.Popen(command, env=environment, cwd=self.checkout, start_new_session=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, recipe: str, action: str, variables: Mapping[str, str] | None = None, status: int = 0) -> str:
        """Runs an action of a recipe in the checkout; returns its output."""
        path = self.root / "recipe.sh"
        path.write_text(recipe)
        command = ["bash", str(path), action]
        environment = self.environment(**(variables or {}))
        done = subprocess.run(
            command, env=environment, cwd=self.checkout, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr


def bash(script: str, machines: Machines, cwd: pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script as a job or pod would."""
    environment = machines.environment(**variables)
    return subprocess.run(
        ["bash", "-c", script], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
