"""Multi-process runs: joining the other processes, agreeing on values and gathering rows."""

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
    """Joins a run of several processes. Call this before anything touches a device.

    Args:
        coordinator: "" for a single process; "auto" where JAX can detect the cluster (TPU pods, GKE, Slurm, Open MPI);
            otherwise host:port of process 0, the same in all processes. IPv6 addresses are written in brackets.
        num_processes: number of processes; ignored with "auto".
        process_id: index of this process; ignored with "auto".
        timeout: seconds to wait for the other processes.

    Raises:
        UserError: If the address is malformed, the settings contradict each other, or a process does not connect in
            time; the message names the likely cause.

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
    # JAX's preemption service would intercept SIGTERM, which `Stop` handles.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(initialization_timeout=timeout, **given)
    except (RuntimeError, ValueError) as error:
        raise UserError(likely_cause(coordinator, num_processes, process_id, timeout, str(error))) from error
    logging.info("process %d of %d, %d devices", jax.process_index(), jax.process_count(), jax.device_count())


def likely_cause(coordinator: str, num_processes: int, process_id: int, timeout: int, said: str) -> str:
    """Describes in one line why a process cannot join.

    Args:
        coordinator, num_processes, process_id, timeout: arguments of `join`.
        said: message of the first error, from `rendezvous` or JAX.
    """
    reason, late = said.partition("\n")[0], "DEADLINE" in said or "imed out" in said
    if coordinator == "auto":
        if late:
            return (
                f"--coordinator=auto: not all hosts of the cluster connected within {timeout} s ({reason}); is the "
                f"command started exactly once on every host?"
            )
        return f"--coordinator=auto: no cluster was detected ({reason}); give --coordinator=host:port"
    if not late:
        return f"--coordinator={coordinator}: process {process_id} cannot join ({reason}); is another run on that port?"
    if process_id == 0:
        return (
            f"not all of --num_processes={num_processes} connected to {coordinator} within {timeout} s "
            f"({reason.removeprefix('DEADLINE: ')}); start each with its own --process_id, and open the port in the "
            f"firewall"
        )
    return (
        f"process {process_id} of {num_processes} found no process 0 at --coordinator={coordinator} within {timeout} "
        f"s; is it running, is its address reachable from here, and do all processes give the same --num_processes?"
    )


def num_processes() -> int:
    """Returns the number of processes of this run; does not initialize a backend in a single-process run.

    >>> num_processes()
    1
    """
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Returns whether this is process 0, which writes metrics, records and the report."""
    return num_processes() == 1 or jax.process_index() == 0


def agreed_maximum(value: int) -> int:
    """Returns the largest value of any process. All processes must call this; all get the same result.

    >>> agreed_maximum(3)
    3
    """
    if num_processes() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def gather_rows(rows: dict[int, Any]) -> list[Any]:
    """Gathers rows from all processes. All processes must call this.

    Args:
        rows: map from row numbers to JSON values; floats are transferred exactly.

    Returns:
        Rows ordered by number; a row that several processes have appears once.

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
    """Numbers the items of this process for `gather_rows`.

    Args:
        rows: positions of the items in the global sequence.
        items: items of this process.

    >>> mine(slice(2, 4), ["c", "d"])
    {2: 'c', 3: 'd'}
    """
    return dict(zip(range(rows.start, rows.stop), items, strict=True))
