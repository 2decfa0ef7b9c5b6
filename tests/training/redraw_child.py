"""One process that redraws problems without signal, from samples that depend on the problems only.

Usage: python redraw_child.py OUT [COORDINATOR COUNT INDEX]
"""

import json
import pathlib
import sys

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.method.generate import SyntheticExamples
from mass_jax.method.meta_step import TaskBatch
from mass_jax.method.text import Rollout, Text
from mass_jax.tasks.base import Problem
from mass_jax.training.collect import Collected
from mass_jax.training.dynamic_sampling import collect_with_signal

SOLVABLE = (0, 5, 6, 9, 10, 11)


def problems(numbers):
    return [Problem(str(i), f"{i}", "", "") for i in numbers]


def parse(tasks, texts_NM):
    assert [texts[0] for texts in texts_NM] == [f"text of {task.id}" for task in tasks]
    return SyntheticExamples(texts_NM, [], None, None)


def main(out: str, coordinator: str = "", count: str = "1", index: str = "0") -> None:
    runtime.join(coordinator, int(count), int(index), timeout=120)
    feed = runtime.Feed(runtime.make_mesh("auto", None if coordinator else jax.devices()[:1]))

    def collect(tasks, key):
        ids = np.array([int(task.id) for task in feed.mine(tasks)], np.float32)
        rows = np.broadcast_to(ids[:, None, None], (len(ids), 2, 3))
        text = Text(rows, rows > 0, rows)
        right = np.array([[1.0, 0.0] if i in SOLVABLE else [0.0, 0.0] for i in ids], np.float32)
        put = feed.put((text, Rollout(text, rows), right, ids), len(tasks))
        batch = TaskBatch(put[0], put[0], put[1], put[1], put[2], put[3])
        return Collected(tasks, batch, parse(feed.mine(tasks), [[f"text of {int(i)}"] for i in ids]), {})

    first, second = problems(range(4)), problems(range(4, 8))
    with runtime.use_mesh(feed.mesh):
        found, redrawn = collect_with_signal(
            collect, parse, feed, first, [None, second, problems(range(8, 12))].__getitem__, jax.random.key(0), 3
        )
        rows = [
            [float(x) for x in (leaf.reshape(len(leaf), -1)[:, 0])]
            for leaf in feed.get((found.batch.generated.logprobs_BT, found.batch.examples.target_BT), 4)
        ]
        own = list(zip(*rows, [texts[0] for texts in found.synthetic.texts_NM], strict=True))
        gathered = runtime.gather_rows(runtime.mine(feed.rows(4), own))
        adapters = runtime.gather_rows(runtime.mine(feed.rows(4), feed.get(found.batch.adapters, 4).tolist()))
    if runtime.is_first():
        result = {"tasks": [task.id for task in found.tasks], "rows": gathered, "adapters": adapters}
        pathlib.Path(out).write_text(json.dumps(result | {"redrawn": redrawn}))


if __name__ == "__main__":
    main(*sys.argv[1:])
