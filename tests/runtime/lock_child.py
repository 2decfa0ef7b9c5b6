"""Processes that lock a workdir at the same instant; prints one line for each.

Usage: python lock_child.py WORKDIR COUNT
"""

import os
import pathlib
import sys
import time

from mass_jax import runtime
from mass_jax.errors import UserError


def main(workdir: str, count: str) -> None:
    start = time.time() + 0.3
    children = []
    for _ in range(int(count)):
        if (child := os.fork()) == 0:
            time.sleep(max(0.0, start - time.time()))
            attempt(pathlib.Path(workdir))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def attempt(workdir: pathlib.Path) -> None:
    """Holds the lock until all other processes have tried to take it."""
    try:
        with runtime.lock_workdir(workdir):
            os.write(1, f"held by {os.getpid()}\n".encode())
            time.sleep(2)
    except UserError as error:
        os.write(1, f"{error}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
