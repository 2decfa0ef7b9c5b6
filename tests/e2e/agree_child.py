"""One of two processes that must agree on rows, workdirs and checkpoints.

Usage: python agree_child.py SHARED OWN COORDINATOR INDEX
"""

import json
import pathlib
import sys

import jax

from mass_jax import runtime
from mass_jax.errors import UserError


def main(shared: str, own: str, coordinator: str, index: str) -> None:
    runtime.join(coordinator, 2, int(index), timeout=120)
    found = {"rows": runtime.gather_rows({0: f"by {index}", int(index) + 1: index})}
    with runtime.lock_workdir(pathlib.Path(shared)):  # one lock for both processes
        runtime.agreed_maximum(0)
        found["locked"] = (pathlib.Path(shared) / ".lock").exists()
        runtime.claim_workdir(pathlib.Path(shared), "{}")
    runtime.claim_workdir(pathlib.Path(shared), "{}")  # settings that exist already are kept
    try:
        with runtime.lock_workdir(pathlib.Path(f"{own[:-1]}held")):
            found["held"] = "acquired"
    except UserError as error:
        found["held"] = str(error)
    try:
        runtime.claim_workdir(pathlib.Path(own), "{}", patience=0.1)
    except UserError as error:
        found["apart"] = str(error)
    feed = runtime.Feed(runtime.make_mesh("fsdp:2"))
    state = feed.place({"q_proj": {"kernel": jax.random.normal(jax.random.key(0), (2, 64, 64))}})
    checkpoints = pathlib.Path(shared) / "checkpoints"
    with runtime.Checkpoints(checkpoints) as saved:
        for step in (1, 2):
            saved.save(step, state)
    if runtime.is_first():  # process 1's part of the newest checkpoint, too large for the index
        damaged = [path for path in (checkpoints / "2").rglob("*process_1/d/*") if path.is_file()]
        for path in damaged:
            path.write_bytes(b"")
        found["damaged"] = len(damaged)
    runtime.agreed_maximum(0)
    with runtime.Checkpoints(checkpoints) as saved:
        restored = saved.restore(state)
    found["step"] = None if restored is None else restored[0]
    (pathlib.Path(shared) / f"{index}.json").write_text(json.dumps(found))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
