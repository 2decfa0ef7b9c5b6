"""Launches a command on many machines, or as several local processes; --nodry_run runs what is printed otherwise.

    python -m experiments.launch --backend=local --num_processes=2 -- --preset=tiny --workdir=runs/two
    python -m experiments.launch --backend=gcloud --topology=v5e:4x4 --name=mass --zone=us-west4-a \\
        --repository=URL -- --preset=llama31_8b_verifier --workdir=/mnt/shared/mass --mesh=fsdp:4,tensor:4
    python -m experiments.launch --backend=xpk --topology=v5e:4x4 --name=mass --cluster=CLUSTER --image=IMAGE -- ...
    python -m experiments.launch --backend=slurm --num_nodes=4 --gpus_per_node=8 --name=mass -- ...

Arguments after -- are passed on to `python -m experiments.train` (or --module). All hosts must see the same --workdir,
on a shared file system. A local run ends as a whole: signals are forwarded to every process, and if one fails, the
others are stopped. A gcloud TPU costs money until it is deleted. Slurm requeues a job that was preempted or lost its
node; a job that reaches its time limit saves and ends, so submit the same command again. Pass further Slurm options
(partition, time, account) in SBATCH_ environment variables.
"""

import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import settings
from experiments.launching.checks import BACKENDS_OF, check_forwarded, check_own
from experiments.launching.topologies import accelerator
from mass_jax.errors import UserError

OWN = flags.FlagValues()  # flags of the launcher; those of the launched command are in flags.FLAGS
BACKENDS = ("local", "gcloud", "xpk", "slurm")
_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
GRACE_SECONDS = 60.0

Command = list[str]


def commands(backend: str, module: str, arguments: Sequence[str], **given: Any) -> list[Command]:
    """Returns the commands of a launch in order; those of `local` run in parallel.

    Args:
        backend: one of `BACKENDS`.
        module: module to run.
        arguments: its command line.
        **given: values of the launcher's flags.

    Raises:
        ValueError: If a flag that the backend needs is missing.

    >>> given = {"num_nodes": 2, "gpus_per_node": 8, "name": "mass"}
    >>> commands("slurm", "experiments.train", ["--preset=tiny"], **given)[0][:5]
    ['sbatch', '--job-name=mass', '--nodes=2', '--ntasks-per-node=8', '--gpus-per-node=8']
    """
    program = ["python", "-m", module, *arguments]
    if backend == "local":
        return _local([sys.executable, *program[1:]], given["num_processes"], given["port"])
    program.append("--coordinator=auto")
    return {"slurm": _slurm, "gcloud": _gcloud, "xpk": _xpk}[backend](program, given)


def _local(program: Command, count: int, port: int) -> list[Command]:
    if count == 1:
        return [program]
    joined = [*program, f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
    return [[*joined, f"--process_id={i}"] for i in range(count)]


def _slurm(program: Command, given: dict[str, Any]) -> list[Command]:
    """Submits one process per GPU, since JAX assigns each Slurm process the GPU of its local id."""
    _need("slurm", given, "name")
    gpus = given["gpus_per_node"]
    tasks = [f"--ntasks-per-node={max(1, gpus)}"] + ([f"--gpus-per-node={gpus}"] if gpus else [])
    whole = ["--exclusive", "--mem=0", "--signal=TERM@120", "--requeue"]  # two minutes to save
    run = shlex.join(["srun", "--kill-on-bad-exit=1", *program])
    named = [f"--job-name={given['name']}", f"--nodes={given['num_nodes']}"]
    return [["sbatch", *named, *tasks, *whole, f"--wrap={run}"]]


def _gcloud(program: Command, given: dict[str, Any]) -> list[Command]:
    """Creates a TPU, installs the project on each of its hosts and starts the same command on all of them."""
    _need("gcloud", given, "name", "zone", "topology", "repository")
    if given["num_slices"] != 1:
        raise ValueError(f"--num_slices={given['num_slices']}: gcloud starts one slice; use --backend=xpk")
    name, zone = given["name"], f"--zone={given['zone']}"
    chip = given["topology"].partition(":")[0]
    if chip not in _RUNTIMES:
        raise ValueError(f"--topology={given['topology']}: gcloud has no TPU VM of {chip}; use --backend=xpk")
    create = ["gcloud", "compute", "tpus", "tpu-vm", "create", name, zone, f"--version={_RUNTIMES[chip]}",
              f"--accelerator-type={accelerator(given['topology'])}"]  # fmt: skip
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", name, zone, "--worker=all"]
    # The Python of the hosts, 3.10, is too old for JAX; uv installs another.
    install = [
        ["python3", "-m", "pip", "install", "-q", "uv"],
        ["git", "clone", given["repository"], "mass_jax"],
        ["python3", "-m", "uv", "venv", "-q", "--python=3.12", "mass_jax/.venv"],
        ["python3", "-m", "uv", "pip", "install", "-q", "--python=mass_jax/.venv", "./mass_jax[tpu]"],
    ]
    run = [["cd", "mass_jax"], [".venv/bin/python", *program[1:]]]
    return [
        create + (["--spot"] if given["spot"] else []),
        [*ssh, "--command=" + " && ".join(map(shlex.join, install))],
        [*ssh, "--command=" + " && ".join(map(shlex.join, run))],
    ]


def _xpk(program: Command, given: dict[str, Any]) -> list[Command]:
    _need("xpk", given, "name", "cluster", "topology", "image")
    slices = f"--num-slices={given['num_slices']}"
    return [["xpk", "workload", "create", f"--cluster={given['cluster']}", f"--workload={given['name']}", slices,
             f"--tpu-type={accelerator(given['topology'])}", f"--docker-image={given['image']}", "--max-restarts=10",
             f"--command={shlex.join(program)}"]]  # fmt: skip


def _need(backend: str, given: dict[str, Any], *names: str) -> None:
    for name in names:
        if not given.get(name):
            raise ValueError(f"--backend={backend} needs --{name}")


def run_together(programs: Sequence[Command]) -> int:
    """Runs commands in parallel and ends them together.

    SIGTERM and Ctrl-C are forwarded to every process, so that all of them save and stop. If one fails, the others are
    asked to stop, since they would wait for it; those that do not stop in time are killed.

    Returns:
        The first nonzero exit status, or 0.
    """
    running = [subprocess.Popen(program, start_new_session=True) for program in programs]

    def pass_on(signum: int, _frame: Any = None) -> None:
        for process in running:
            process.send_signal(signum)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not any(process.poll() for process in running) and any(process.poll() is None for process in running):
            time.sleep(0.05)
        status = next((process.returncode for process in running if process.returncode), 0)
        if status:
            pass_on(signal.SIGTERM)
        return status
    finally:
        _wait(running)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: Sequence[subprocess.Popen]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(argv: Sequence[str]) -> None:
    """Runs the command with the arguments after `--`."""
    try:
        check_own(OWN)
        given = {name: OWN[name].value for name in BACKENDS_OF} | {"port": OWN.port or free_port()}
        programs = commands(OWN.backend, OWN.module, argv, **given)
        check_forwarded(OWN, argv, programs[-1])
        for program in programs:
            print(shlex.join(program), flush=True)
        if OWN.backend == "gcloud":
            delete = ["gcloud", "compute", "tpus", "tpu-vm", "delete", OWN.name, f"--zone={OWN.zone}"]
            print(f"# the TPU costs money until you run: {shlex.join(delete)}", flush=True)
        if OWN.dry_run:
            return
        if OWN.backend == "local":
            raise SystemExit(run_together(programs))
        for program in programs:
            if status := subprocess.run(program, check=False).returncode:
                raise UserError(f"{program[0]} ended with status {status}; see its message above")
    except (ValueError, OSError) as error:
        settings.fail(" ".join(str(error).split()))


def free_port() -> int:
    """Returns a free local port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def define(values: flags.FlagValues) -> None:
    """Defines the launcher's flags, separately from those of the launched command, which share names."""
    flags.DEFINE_enum(
        "backend",
        "local",
        BACKENDS,
        "Where to run: local processes, a Google Cloud TPU VM, xpk (GKE) or Slurm.",
        flag_values=values,
    )
    flags.DEFINE_bool("dry_run", True, "Only print the commands; --nodry_run runs them.", flag_values=values)
    flags.DEFINE_string(
        "module",
        "experiments.train",
        "Module to run; it must define its flags on import or in define().",
        flag_values=values,
    )
    flags.DEFINE_integer("num_processes", 1, "local: number of processes.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("num_nodes", 1, "slurm: number of nodes, used exclusively.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "gpus_per_node",
        1,
        "slurm: GPUs per node, with one process each; 0 for CPUs.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "port",
        0,
        "local: port of process 0; 0 picks a free one.",
        lower_bound=0,
        upper_bound=2**16 - 1,
        flag_values=values,
    )
    flags.DEFINE_string("name", "", "gcloud, xpk, slurm: name of the TPU, the workload or the job.", flag_values=values)
    flags.DEFINE_string("zone", "", "gcloud: zone of the TPU, such as us-west4-a.", flag_values=values)
    flags.DEFINE_string("topology", "", "gcloud, xpk: TPU topology, such as v5e:4x4.", flag_values=values)
    flags.DEFINE_integer("num_slices", 1, "xpk: number of slices of that topology.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("cluster", "", "xpk: name of the cluster.", flag_values=values)
    flags.DEFINE_string("image", "", "xpk: container image in which mass_jax[tpu] is installed.", flag_values=values)
    flags.DEFINE_bool("spot", False, "gcloud: preemptible (spot) capacity; resumes from --workdir.", flag_values=values)
    flags.DEFINE_string(
        "repository", "", "gcloud: URL of a Git repository with this code, which each host clones.", flag_values=values
    )


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the launcher's flags, before `--`; returns the arguments after it."""
    before, after = list(argv), []
    if "--" in before:
        split = before.index("--")
        before, after = before[:split], before[split + 1 :]
    if {"--help", "-h", "--helpfull", "--helpshort"} & {*before}:
        print(f"{__doc__}\n{OWN.main_module_help() or OWN.get_help()}")
        raise SystemExit(0)
    try:
        rest = OWN(before)
    except flags.Error as error:
        settings.fail(f"{' '.join(str(error).split())} (flags of the launched command go after --)")
    if len(rest) > 1:
        settings.fail(f"unexpected argument {rest[1]!r}; flags of the launched command go after --")
    flags.FLAGS.mark_as_parsed()
    return after


if __name__ == "__main__":
    define(OWN)
    settings.run(main, parse)
