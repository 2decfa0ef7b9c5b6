"""Launches a command as local processes, or prints the recipe of a remote launch; --nodry_run runs what is printed.

    python -m experiments.launch --backend=local --num_processes=2 -- --preset=tiny --workdir=runs/two
    python -m experiments.launch --backend=xpk --topology=v5e:4x4 --name=mass --cluster=CLUSTER --image=IMAGE -- ...
    python -m experiments.launch --backend=gcloud --topology=v5e:4x4 --name=mass --zone=us-west4-a \\
        --repository=URL -- --preset=llama31_8b_verifier --workdir=/mnt/shared/mass --mesh=fsdp:4,tensor:4
    python -m experiments.launch --backend=slurm --num_nodes=4 --gpus_per_node=8 --name=mass -- ...
    python -m experiments.launch --backend=skypilot --accelerators=H100:8 --name=mass -- ...

Arguments after -- are passed on to `python -m experiments.train` (or --module). All hosts must see the same
--workdir, on a shared file system or in a bucket. A local run ends as a whole: signals are forwarded to every
process, and if one fails, the others are stopped. A recipe is a script with the actions launch, create, stage, start,
status, logs, stop, delete and cost; --nodry_run runs --action. Remote runs are detached and survive this terminal;
machines cost money until the action delete. Rerun the action start to resume from --workdir. Pass further Slurm
options (partition, time, account) in SBATCH_ environment variables.
"""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import settings
from experiments.launching import environment, recipes
from experiments.launching.checks import BACKENDS_OF, check_forwarded, check_own
from experiments.launching.launch_flags import define
from experiments.launching.mounts import mounts
from mass_jax.errors import UserError

OWN = flags.FlagValues()  # flags of the launcher; those of the launched command are in flags.FLAGS
GRACE_SECONDS = 60.0

Command = list[str]


def local_commands(module: str, arguments: Sequence[str], count: int, port: int) -> list[Command]:
    """Returns the commands of a local launch, which run in parallel.

    Args:
        module: module to run.
        arguments: its command line.
        count: number of processes.
        port: port of process 0.

    >>> local_commands("experiments.train", ["--preset=tiny"], 2, 9)[1][-2:]
    ['--num_processes=2', '--process_id=1']
    """
    program = [sys.executable, "-m", module, *arguments]
    if count == 1:
        return [program]
    joined = [*program, f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
    return [[*joined, f"--process_id={i}"] for i in range(count)]


def run_together(programs: Sequence[Command], variables: Mapping[str, str] | None = None) -> int:
    """Runs commands in parallel and ends them together.

    SIGTERM and Ctrl-C are forwarded to every process, so that all of them save and stop. If one fails, the others are
    asked to stop, since they would wait for it; those that do not stop in time are killed.

    Args:
        programs: the commands.
        variables: variables to add to their environment.

    Returns:
        The first nonzero exit status, or 0.
    """
    inherited = {**os.environ, **(variables or {})}
    running = [subprocess.Popen(program, start_new_session=True, env=inherited) for program in programs]

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
        variables = environment.variables(OWN.env, OWN.env_file)
        if OWN.backend == "local":
            programs = local_commands(OWN.module, argv, OWN.num_processes, OWN.port or free_port())
            check_forwarded(OWN, argv, programs[-1])
            for program in programs:
                print(shlex.join(program), flush=True)
            if not OWN.dry_run:
                raise SystemExit(run_together(programs, variables))
            return
        given = {name: OWN[name].value for name in BACKENDS_OF}
        given |= {"mounts": mounts(OWN.mount, OWN.backend), "variables": sorted(variables)}
        recipe = recipes.render(OWN.backend, OWN.module, argv, **given)
        check_forwarded(OWN, argv, [])
        if OWN.dry_run:
            print(recipe, end="", flush=True)
        else:
            run_recipe(recipe, OWN.action, variables)
    except (ValueError, OSError) as error:
        settings.fail(" ".join(str(error).split()))


def run_recipe(recipe: str, action: str, variables: Mapping[str, str]) -> None:
    """Runs an action of a recipe; the variables are passed in its environment.

    Raises:
        UserError: If the action fails.
    """
    with tempfile.TemporaryDirectory(prefix="mass_launch_") as directory:
        path = pathlib.Path(directory, "recipe.sh")
        path.write_text(recipe, encoding="utf-8")
        command = ["bash", str(path), action]
        if status := subprocess.run(command, env={**os.environ, **variables}, check=False).returncode:
            raise UserError(f"--action={action} ended with status {status}; see its message above")


def free_port() -> int:
    """Returns a free local port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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
