"""Joining the other processes of a run, first of all in every main; what one process alone may do."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from mass_jax.errors import UserError
from mass_jax.runtime import rendezvous


def join(coordinator: str, num_processes: int = 1, process_id: int = 0, timeout: int = 300) -> None:
    """Joins a run of many processes. Call it before anything touches a device.

    Args:
        coordinator: "" for a run of one process; "auto" where the cluster tells (TPU pods, GKE, Slurm, Open MPI); else
            host:port of process 0, the same for all. An IPv6 address stands in brackets.
        num_processes: how many processes there are; ignored with "auto".
        process_id: which of them this is; ignored with "auto".
        timeout: seconds to wait for the others.

    Raises:
        UserError: the address is malformed, the settings contradict each other, or a process did not come in time;
            names the likely cause.

    >>> join("")
    """
    if not coordinator:
        if num_processes != 1:
            raise UserError(f"--num_processes={num_processes} needs --coordinator=host:port of process 0, or auto")
        return
    given: dict[str, Any] = {}
    if coordinator != "auto":
        host, port = rendezvous.parse_address(coordinator)
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id={process_id} is not in 0..{num_processes - 1} of --num_processes")
        given = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
        try:
            if num_processes > 1:
                rendezvous.meet(host, port, num_processes, process_id, timeout)
        except rendezvous.Absent as absent:
            said = f"DEADLINE: {absent}"
            raise UserError(likely_cause(coordinator, num_processes, process_id, timeout, said)) from None
    # JAX's own listener takes SIGTERM away from `Stop`, on which the processes agree.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(initialization_timeout=timeout, **given)
    except (RuntimeError, ValueError) as error:
        raise UserError(likely_cause(coordinator, num_processes, process_id, timeout, str(error))) from error
    logging.info("process %d of %d, %d devices", jax.process_index(), jax.process_count(), jax.device_count())


def likely_cause(coordinator: str, num_processes: int, process_id: int, timeout: int, said: str) -> str:
    """Describes in one line why a process cannot join.

    Args:
        coordinator, num_processes, process_id, timeout: as in `join`.
        said: the first error, of `rendezvous` or of JAX.
    """
    reason, late = said.partition("\n")[0], "DEADLINE" in said or "imed out" in said
    if coordinator == "auto":
        if late:
            return (
                f"--coordinator=auto: not all hosts of the cluster came within {timeout} s ({reason}); is the command "
                f"started on every one of them, and by none twice?"
            )
        return f"--coordinator=auto: no cluster tells who takes part ({reason}); give --coordinator=host:port"
    if not late:
        return f"--coordinator={coordinator}: process {process_id} cannot join ({reason}); is another run on that port?"
    if process_id == 0:
        return (
            f"not all of --num_processes={num_processes} came to {coordinator} within {timeout} s "
            f"({reason.removeprefix('DEADLINE: ')}); start each with its own --process_id, and let the port through "
            f"the firewall"
        )
    return (
        f"process {process_id} of {num_processes} found no process 0 at --coordinator={coordinator} within {timeout} "
        f"s; is it running, is its address reachable from here, and do all give the same --num_processes?"
    )


def num_processes() -> int:
    """How many processes this run has; touches no device in a run of one.

    >>> num_processes()
    1
    """
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes what is written once: metrics, records, the report."""
    return num_processes() == 1 or jax.process_index() == 0


def agreed_maximum(value: int) -> int:
    """The largest of the numbers that the processes give; all of them must ask, and all get the same.

    >>> agreed_maximum(3)
    3
    """
    if num_processes() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def gather_rows(rows: dict[int, Any]) -> list[Any]:
    """Rows of all processes, in the order of their numbers; a row that several have is taken once.

    Args:
        rows: by number, JSON values (floats keep every bit). All processes must ask.

    >>> gather_rows({1: "b", 0: "a"})
    ['a', 'b']
    """
    if num_processes() == 1:
        return [rows[i] for i in sorted(rows)]
    own = np.frombuffer(json.dumps(list(rows.items())).encode(), np.uint8)
    length = agreed_maximum(own.size)
    padded = np.full(length, ord(" "), np.uint8)
    padded[: own.size] = own
    every: Any = multihost_utils.process_allgather(padded)
    merged = {i: row for part in every for i, row in json.loads(bytes(part))}
    return [merged[i] for i in sorted(merged)]


def mine(rows: slice, items: Sequence[Any]) -> dict[int, Any]:
    """A process's items by their number in the whole, as `gather_rows` takes them.

    >>> mine(slice(2, 4), ["c", "d"])
    {2: 'c', 3: 'd'}
    """
    return dict(zip(range(rows.start, rows.stop), items, strict=True))
