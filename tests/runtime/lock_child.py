"""Processes that lock a workdir at the same instant; prints one line for each.

Usage: python lock_child.py WORKDIR COUNT
"""

import os
import pathlib
import select
import sys
import time

from mass_jax.errors import UserError
from mass_jax.runtime import lock_workdir  # imported once, not by each child


def main(workdir: str, count: str) -> None:
    start = time.time() + 0.3
    waiting, others_ended = os.pipe()
    for _ in range(int(count)):
        if os.fork() == 0:
            os.close(others_ended)
            time.sleep(max(0.0, start - time.time()))
            attempt(pathlib.Path(workdir), waiting)
            os._exit(0)
    for _ in range(int(count) - 1):
        os.wait()
    os.close(others_ended)
    os.wait()


def attempt(workdir: pathlib.Path, waiting: int) -> None:
    """Holds the lock until all other processes have tried to take it, at most 10 seconds."""
    try:
        with lock_workdir(workdir):
            os.write(1, f"held by {os.getpid()}\n".encode())
            select.select([waiting], [], [], 10)
    except UserError as error:
        os.write(1, f"{error}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
