"""Peak resident memory of single calls, each in a fresh process, on Linux.

PyTorch has no compiler that reports temporaries. The operating system measures both sides alike: the peak of a call
minus the memory of the process before it.
"""

import concurrent.futures
import ctypes
import gc
import multiprocessing
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from experiments.benchmarks.metagrad_cases import Case, rate_of
from experiments.benchmarks.metagrad_programs import PEERS, draw, lower
from third_party.peers import problem

_STATUS, _RESET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def measured(case: Case, size: problem.Size, dtype: str, tasks: int = 1) -> int | None:
    """Measures the peak memory of a case or of a peer.

    Args:
        case: the case.
        size: shapes of the problem.
        dtype: data type of the weights.
        tasks: number of tasks.

    Returns:
        Bytes above those before the call, which exclude weights, data and the compiler; None if they are not known.
    """
    if not _RESET.exists():
        logging.info("peak memory is measured on Linux only")
        return None
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit this one's memory
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            peak = pool.submit(_in_this_process, case, size, dtype, tasks).result()
    except concurrent.futures.process.BrokenProcessPool:
        logging.warning("%s: its process ended while its peak memory was measured; is memory short?", case.label)
        return None
    logging.info("%s: peak memory %.1f MiB", case.label, peak / 2**20)
    return peak


def _in_this_process(case: Case, size: problem.Size, dtype: str, tasks: int) -> int:
    """Prepares a call, which loads and compiles all that it needs, and returns its peak."""
    data = jax.block_until_ready(jax.jit(lambda key: draw(key, size, dtype, tasks))(jax.random.key(0)))
    name = case.adjoint.removeprefix("peer: ")
    if name in PEERS:
        import torch

        from third_party.peers import torch_peers

        torch.set_num_threads(1)  # threads wait for each other at full load, and memory hardly depends on them
        return peak_of(lambda: torch_peers.PEERS[name](size, data, rate_of("sgd"), case.num_steps))
    compiled = lower(case, size, dtype, tasks).compile()
    return peak_of(lambda: jax.block_until_ready(compiled(data)))


def peak_of(call: Callable[[], Any]) -> int:
    """Returns the bytes by which the resident memory of this process exceeds that before a call at its peak."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc: returns freed memory to the system
    if trim is not None:
        trim(0)
    _RESET.write_text("5", encoding="ascii")  # sets the peak to the present value
    before = _kibibytes("VmRSS")
    call()
    return 1024 * (_kibibytes("VmHWM") - before)


def _kibibytes(name: str) -> int:
    """Returns a value of /proc/self/status."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
