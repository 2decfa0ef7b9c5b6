"""Measures meta-gradients through long inner loops: memory over K, and time, for each place of the trajectory.

    python -m experiments.benchmarks.long_loops --out=runs/long_loops
    python -m experiments.benchmarks.long_loops --case=gpt2 --repeats=0 --memory_steps=96 --out=runs/long_loops_gpt2
    python -m experiments.benchmarks.long_loops --layers=4 --width=128 --inner_steps=200 --out=runs/own

Every step has examples of its own with a weight each, all parameters are adapted by AdamW, and the gradient of an outer
loss with respect to all weights is computed. Takes about 10 minutes on 2 cores; --case=gpt2 is only compiled. Writes
long_loops.json, long_loops.md and the figure long_loops.png (also as SVG). Rerun the same command to resume.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags, logging

from experiments import settings
from experiments.benchmarks import long_loops_report
from experiments.benchmarks.partial import Parts
from experiments.path_flags import DEFINE_path
from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.metagrad.benchmark_runs import interleaved
from mass_jax.metagrad.report import report_of
from third_party.peers import problem

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of a long inner loop.

    Attributes:
        size: the model, and the examples of each step; its rank of 0 adapts all parameters.
        micro_batch: examples whose gradient is computed at a time; 0 means all.
        remat: rematerialization of blocks.
        loss_chunk: token positions per chunk of logits; 0 means all.
    """

    size: problem.Size
    micro_batch: int
    remat: str = "none"
    loss_chunk: int = 0


# TristanThrush/dataset-policy-gradients differentiates through total_batches = 96 steps of AdamW on all parameters of
# GPT-2, each on grad_accumulation_steps = 8 micro-batches of microbatch_size = 128 sequences of 128 tokens, with
# respect to a weight of each example (experiment_configs/67_experiments/adam). "gpt2" has these shapes on a Llama with
# as many parameters, "small" the same loop at a size that two cores can run.
CASES = {
    "small": Case(problem.Size(2, 64, 172, 4, 4, 512, 0, 32, 32, 8, tied=True), micro_batch=8),
    "gpt2": Case(problem.Size(12, 768, 2048, 12, 12, 50257, 0, 1024, 128, 8, tied=True), 128, "block", 32),
}
ADJOINTS: dict[str, mg.Adjoint] = {
    "device": mg.WeightedMixedMode("save_grads"),
    "step": mg.WeightedMixedMode("step"),
    "recursive": mg.WeightedMixedMode("recursive"),
    "replay": mg.WeightedMixedMode("replay"),
    "host": mg.WeightedMixedMode("save_grads", mg.HostStore()),
    "disk": mg.WeightedMixedMode("save_grads", mg.DiskStore()),
    "host_step": mg.WeightedMixedMode("step", mg.HostStore()),
    "disk_step": mg.WeightedMixedMode("step", mg.DiskStore()),
    "reverse": mg.ReverseUnroll("step"),
}
"""Names of --stores; `device`, `step`, `recursive`, `replay` and `reverse` keep the trajectory on the device."""
_QUICK: Any = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
DEFAULT_STORES = ("device", "step", "recursive", "host", "disk")


def optimizer() -> optax.GradientTransformation:
    """Returns AdamW with the settings of dataset-policy-gradients."""
    return optax.adamw(5e-6, b1=0.9, b2=0.95, eps=1e-8, eps_root=1e-9, weight_decay=1e-4)


def draw(key: jax.Array, case: Case, steps: int) -> dict[str, Any]:
    """Samples the arguments of `gradient`: parameters, tokens and a weight of each example of each step."""
    size, count = case.size, case.size.examples
    data = problem.draw(key, dataclasses.replace(size, examples=steps * count))
    return {
        "params": data.params,
        "weights": data.weights_M * steps,
        "tokens": data.tokens_MT.reshape(steps, count, size.tokens),
        "index": jnp.arange(steps * count).reshape(steps, count),
        "outer": data.outer_BT,
    }


def gradient(case: Case, steps: int, adjoint: mg.Adjoint, data: dict[str, Any]) -> jax.Array:
    """Returns the derivative of the outer loss with respect to the weights of all steps' examples."""
    losses_of = problem.example_losses(case.size, {}, case.remat, case.loss_chunk)
    inner_loss = mg.WeightedLoss(
        lambda params, batch: losses_of(params, batch["tokens"]),
        lambda weights, batch: weights[batch["index"]],
        chunk=case.micro_batch or None,
    )
    return mg.meta_gradient(
        inner_loss,
        lambda params, outer: jnp.mean(losses_of(params, outer)),
        data["params"],
        data["weights"],
        {"tokens": data["tokens"], "index": data["index"]},
        data["outer"],
        optimizer=optimizer(),
        num_steps=steps,
        adjoint=adjoint,
        batch_per_step=True,
    ).meta


@functools.cache
def compiled(case: Case, steps: int, store: str, to_run: bool) -> tuple[Any, dict[str, Any]]:
    """Compiles a gradient; returns the program, its temporaries in bytes and the compilation time in seconds.

    A program that does not run is compiled without the optimizations of LLVM, which do not change its temporaries.
    """
    shapes = jax.eval_shape(functools.partial(draw, case=case, steps=steps), jax.random.key(0))
    lowered = jax.jit(functools.partial(gradient, case, steps, ADJOINTS[store])).lower(shapes)
    start = time.perf_counter()
    program = lowered.compile(None if to_run else _QUICK)
    report = report_of(program, time.perf_counter() - start, jax.devices()[0].device_kind)
    return program, {"temp_bytes": report.temp_bytes, "compile_seconds": report.compile_seconds}


def memory_of(case: Case, steps: int, store: str, to_run: bool) -> dict[str, Any]:
    """Returns what `compiled` measures."""
    return compiled(case, steps, store, to_run)[1]


def state_bytes(case: Case) -> int:
    """Returns the bytes of one state: parameters and both moments of Adam."""

    def state(key: jax.Array) -> Any:
        params = problem.draw(key, case.size).params
        return params, optimizer().init(params)

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(state, jax.random.key(0))))


def timed(case: Case, steps: int, stores: Sequence[str], repeats: int) -> dict[str, Any]:
    """Times the compiled gradients in turn, after a warm-up; returns times, and differences to the first gradient."""
    data = draw(jax.random.key(0), case, steps)
    found: dict[str, np.ndarray] = {}

    def run(store: str) -> None:
        found[store] = np.asarray(compiled(case, steps, store, to_run=True)[0](data), np.float64)

    times: dict[str, list[float]] = {store: [] for store in stores}
    for turn, seconds in enumerate(interleaved({store: functools.partial(run, store) for store in stores}, repeats), 1):
        for store, each in seconds.items():
            times[store].append(each)
        logging.info("round %d of %d, K = %d", turn, repeats, steps)
    first = found[stores[0]]
    difference = {store: float(np.linalg.norm(each - first) / np.linalg.norm(first)) for store, each in found.items()}
    return {"times": times, "difference": difference}


def chosen_case() -> Case:
    """Returns the case of the flags."""
    case = CASES[FLAGS.case]
    names = {
        field.name: getattr(FLAGS, field.name) for field in dataclasses.fields(problem.Size) if field.name in _SIZES
    }
    changed = {name: value for name, value in names.items() if value is not None}
    size = dataclasses.replace(case.size, **changed)
    if "heads" in changed:
        size = dataclasses.replace(size, kv_heads=size.heads)
    micro = case.micro_batch if FLAGS.micro_batch is None else FLAGS.micro_batch
    if micro and size.examples % micro:
        raise UserError(f"--micro_batch={micro} does not divide --examples={size.examples}; choose a divisor, or 0")
    if size.width % size.heads:
        raise UserError(f"--heads={size.heads} does not divide --width={size.width}; choose a divisor")
    return dataclasses.replace(case, size=size, micro_batch=micro)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Measures, then writes the results."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/long_loops")
    unknown = [name for name in FLAGS.stores if name not in ADJOINTS]
    if unknown or not FLAGS.stores:
        raise UserError(f"--stores={','.join(FLAGS.stores)} must name some of {', '.join(ADJOINTS)}")
    case, out = chosen_case(), pathlib.Path(FLAGS.out)
    try:
        steps_K = sorted({*map(int, FLAGS.memory_steps), FLAGS.inner_steps})
    except ValueError:
        raise UserError(f"--memory_steps={','.join(FLAGS.memory_steps)} must be numbers, like 2,8,32,96") from None
    if steps_K[0] < 1:
        raise UserError(f"--memory_steps and --inner_steps must be at least 1, not {steps_K[0]}")
    header = {"case": dataclasses.asdict(case), "jax": jax.__version__, "device": jax.devices()[0].device_kind}
    header["machine"] = FLAGS.machine or f"{os.cpu_count()} CPU cores"
    out.mkdir(parents=True, exist_ok=True)
    parts = Parts(out / "partial.json", header, stop)

    def to_run(steps: int) -> bool:
        return FLAGS.repeats > 0 and steps == FLAGS.inner_steps

    rows = [
        {"store": store, "K": steps}
        | parts.of(f"{store} {steps}", functools.partial(memory_of, case, steps, store, to_run(steps)))
        for steps in steps_K
        for store in FLAGS.stores
    ]
    result = header | {"state_bytes": state_bytes(case), "inner_steps": FLAGS.inner_steps, "rows": rows}
    if FLAGS.repeats:
        name = f"times {FLAGS.inner_steps} {','.join(FLAGS.stores)} {FLAGS.repeats}"
        result |= parts.of(name, lambda: timed(case, FLAGS.inner_steps, FLAGS.stores, FLAGS.repeats))
    long_loops_report.write(result, out)
    parts.finish()


_SIZES = ("layers", "width", "ff", "heads", "vocab", "examples", "tokens")


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("case", "small", sorted(CASES), "Named shapes.")
    for name in _SIZES:
        flags.DEFINE_integer(name, None, f"Replaces {name} of the case.", lower_bound=1)
    flags.DEFINE_integer("micro_batch", None, "Examples whose gradient is computed at a time; 0 is all.", lower_bound=0)
    flags.DEFINE_integer("inner_steps", 96, "Number of inner steps K of the timed runs.", lower_bound=1)
    flags.DEFINE_list("memory_steps", ["2", "8", "32"], "Numbers of inner steps to compile, besides --inner_steps.")
    flags.DEFINE_list("stores", list(DEFAULT_STORES), f"What to measure: {', '.join(ADJOINTS)}.")
    flags.DEFINE_integer("repeats", 3, "Number of timed runs; 0 only compiles.", lower_bound=0)
    DEFINE_path("out", None, "Directory for the results; rerun with the same directory to resume.")
    flags.DEFINE_string("machine", "", "Name of this machine in the results; empty uses its number of cores.")


if __name__ == "__main__":
    define()
    settings.run(main)
