"""Compares meta-gradients of one small problem with `higher`, TorchOpt, bergson and plain JAX, on a CPU, in float64.

    python -m experiments.benchmarks.peers_metagrad --out=runs/peers
    python -m experiments.benchmarks.peers_metagrad --hidden=32 --examples=16 --steps=2 --repeats=1 --out=runs/quick

Computes the derivative with respect to example weights through K steps of SGD and of three settings of Adam. Reports
the relative difference to plain JAX, the median time over interleaved runs and, for SGD, the peak resident memory of
one call in a fresh process (Linux). Compares the metasmoothness along one direction with bergson's. Libraries that are
not installed are skipped. Takes about 10 minutes on 2 cores. Writes peers.json and peers.md.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from experiments import settings
from experiments.benchmarks import metagrad_peak
from experiments.path_flags import DEFINE_path
from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.metagrad import signal
from mass_jax.metagrad.benchmark_runs import interleaved
from third_party.peers import mlp

FLAGS = flags.FLAGS
OPTIMIZERS = {
    "sgd": mlp.Inner(0.1),
    "adam, eps_root=1e-6": mlp.Inner(0.01, adam=True, eps_root=1e-6),
    "adam, eps=1e-8": mlp.Inner(0.01, adam=True),
    "adam, eps=1e-15": mlp.Inner(0.01, adam=True, eps=1e-15),
}
"""Adam with eps_root=0 is what `higher` has. It adds eps before the bias correction, the others after it."""
JAX_PEERS: dict[str, Callable[..., jax.Array]] = {
    "plain JAX": mlp.plain_jax,
    "WeightedMixedMode": functools.partial(mlp.mixed_mode, adjoint=mg.WeightedMixedMode()),
}
PERTURBATION = signal.Options().perturbation
"""Step along the direction of the metasmoothness, relative to each weight."""
TORCH_PEERS = ("higher", "torchopt", "bergson")
PACKAGES = ("jax", "optax", "torch", *TORCH_PEERS)


@dataclasses.dataclass(frozen=True)
class Case:
    """One meta-gradient: a peer, the name of an inner optimizer, and the number of steps."""

    peer: str
    optimizer: str
    steps: int

    @property
    def label(self) -> str:
        """Name for logs."""
        return f"{self.peer}, {self.optimizer}, K = {self.steps}"


def cases(steps_K: list[int]) -> list[Case]:
    """Returns the cases of all peers that are installed; plain JAX comes first."""
    installed = [peer for peer in TORCH_PEERS if importlib.util.find_spec(peer)]
    return [
        Case(peer, optimizer, steps)
        for steps in steps_K
        for optimizer, inner in OPTIMIZERS.items()
        for peer in (*JAX_PEERS, *installed)
        if peer != "higher" or not inner.eps_root
    ]


def prepare(case: Case, shape: mlp.Shape) -> Callable[[], np.ndarray]:
    """Returns a call that computes the gradient of a case; a JAX program is compiled here."""
    data, inner = mlp.draw(0, shape), OPTIMIZERS[case.optimizer]
    if case.peer in JAX_PEERS:
        arrays = jax.tree.map(jnp.asarray, data)
        program = jax.jit(functools.partial(JAX_PEERS[case.peer], inner=inner, num_steps=case.steps))
        compiled = program.lower(arrays).compile()
        return lambda: np.asarray(compiled(arrays))
    from third_party.peers import mlp_torch

    return functools.partial(mlp_torch.PEERS[case.peer], data, inner, case.steps)


def peak(case: Case, shape: mlp.Shape) -> int | None:
    """Returns the bytes that one call needs above those before it, in a fresh process; None except on Linux."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        return None
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_peak_here, case, shape).result()


def _peak_here(case: Case, shape: mlp.Shape) -> int:
    """Measures in this process, after a call on tiny shapes that loads the libraries."""
    jax.config.update("jax_enable_x64", True)
    prepare(case, mlp.Shape(2, 2, 2, 2))()
    return metagrad_peak.peak_of(prepare(case, shape))


def measure(shape: mlp.Shape, steps_K: list[int], repeats: int) -> list[dict[str, Any]]:
    """Computes and times all cases; every call runs once before the timed rounds, which are interleaved.

    Args:
        shape: shapes of the problem.
        steps_K: numbers of inner steps.
        repeats: number of timed rounds.

    Returns:
        One row per case: `peer`, `optimizer`, `steps`, `difference` (relative, to plain JAX), `seconds` of all rounds.
    """
    found = cases(steps_K)
    calls = {case: prepare(case, shape) for case in found}
    logging.info("prepared %d cases", len(found))
    values = {case: call() for case, call in calls.items()}
    seconds: dict[Case, list[float]] = {case: [] for case in found}
    for turn, times in enumerate(interleaved({case.label: call for case, call in calls.items()}, repeats), 1):
        logging.info("round %d of %d", turn, repeats)
        for case in found:
            seconds[case].append(times[case.label])
    rows = []
    for case in found:
        exact = values[dataclasses.replace(case, peer="plain JAX")]
        difference = float(np.linalg.norm(values[case] - exact) / np.linalg.norm(exact))
        rows.append(dataclasses.asdict(case) | {"difference": difference, "seconds": seconds[case]})
    return rows


def smoothness(shape: mlp.Shape, steps_K: list[int]) -> list[dict[str, Any]]:
    """Measures the metasmoothness of every inner loop along one direction, with this project and with bergson.

    Returns:
        One row per optimizer and number of steps: `optimizer`, `steps`, `mass_jax`, `bergson`; none without bergson.
    """
    if importlib.util.find_spec("bergson") is None:
        return []
    from third_party.peers import mlp_torch

    data, key = mlp.draw(0, shape), jax.random.key(0)
    direction_M = mlp.direction(key, shape.examples)
    return [
        {
            "optimizer": optimizer,
            "steps": steps,
            "mass_jax": mlp.metasmoothness(data, inner, steps, key, PERTURBATION),
            "bergson": mlp_torch.bergson_metasmoothness(data, inner, steps, direction_M, PERTURBATION),
        }
        for steps in steps_K
        for optimizer, inner in OPTIMIZERS.items()
    ]


def table(result: dict[str, Any]) -> str:
    """Returns the results in Markdown."""
    shape, versions = result["shape"], ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    lines = [
        f"Machine: {result['machine']}; {versions}. Float64, a network with {shape['inputs']} inputs, "
        f"{shape['hidden']} hidden units and {shape['outputs']} outputs, {shape['examples']} examples with a weight "
        "each, all of them in every step.",
        "",
        "| optimizer | K | meta-gradient by | difference | median, ms | range, ms | peak, MiB |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        times = [1000 * each for each in row["seconds"]]
        spread = f"{min(times):.1f} to {max(times):.1f}"
        memory = f"{row['peak_bytes'] / 2**20:.1f}" if row.get("peak_bytes") else ""
        lines.append(
            f"| {row['optimizer']} | {row['steps']} | {row['peer']} | {row['difference']:.0e} | "
            f"{statistics.median(times):.1f} | {spread} | {memory} |"
        )
    lines += [
        "",
        "The difference is relative, to plain JAX. JAX programs are compiled before; PyTorch runs eagerly. The peak is "
        "what the process grows by during one call.",
    ]
    if rows := result.get("smoothness"):
        lines += [
            "",
            f"Metasmoothness along one random direction, with steps of {PERTURBATION} of each weight:",
            "",
            "| optimizer | K | mass_jax | bergson | difference |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['optimizer']} | {row['steps']} | {row['mass_jax']:.4f} | {row['bergson']:.4f} | "
            f"{abs(row['mass_jax'] - row['bergson']):.0e} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Measures, then writes the results."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/peers")
    try:
        steps_K = [int(steps) for steps in FLAGS.steps]
    except ValueError:
        raise UserError(f"--steps={','.join(FLAGS.steps)} must be numbers, like 4,16") from None
    if not steps_K or min(steps_K) < 1:
        raise UserError(f"--steps={','.join(FLAGS.steps)} must be numbers of at least 1, like 4,16")
    shape = mlp.Shape(FLAGS.inputs, FLAGS.hidden, FLAGS.outputs, FLAGS.examples)
    with jax.enable_x64(True):
        rows = measure(shape, steps_K, FLAGS.repeats)
        smooth = smoothness(shape, steps_K)
    result = {
        "machine": FLAGS.machine or f"{os.cpu_count()} CPU cores",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)},
        "shape": dataclasses.asdict(shape),
        "rows": rows,
        "smoothness": smooth,
    }
    out = pathlib.Path(FLAGS.out)
    write(result, out)
    for row in rows if FLAGS.peaks else ():
        if row["optimizer"] == "sgd":
            stop.poll()
            row["peak_bytes"] = peak(Case(row["peer"], row["optimizer"], row["steps"]), shape)
            write(result, out)
    print(table(result))


def write(result: dict[str, Any], out: pathlib.Path) -> None:
    """Writes the results; times come first, and peaks are added one by one."""
    out.mkdir(parents=True, exist_ok=True)
    runtime.write_atomically(out / "peers.json", json.dumps(result, indent=1) + "\n")
    runtime.write_atomically(out / "peers.md", table(result))


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    for name, default in dataclasses.asdict(mlp.Shape()).items():
        flags.DEFINE_integer(name, default, f"Number of {name}.", lower_bound=1)
    flags.DEFINE_list("steps", ["4", "16"], "Numbers of inner steps K.")
    flags.DEFINE_integer("repeats", 7, "Number of timed rounds.", lower_bound=1)
    flags.DEFINE_bool("peaks", True, "Measure the peak memory of each case with SGD in a process of its own.")
    DEFINE_path("out", None, "Directory for the results.")
    flags.DEFINE_string("machine", "", "Name of this machine in the results; empty uses its number of cores.")


if __name__ == "__main__":
    define()
    settings.run(main)
