"""Cases, shapes and measurements of `experiments.bench_metagrad`."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.benchmarks.rows import Rows
from mass_jax import metagrad as mg
from third_party.peers import plain_jax, problem


@dataclasses.dataclass(frozen=True)
class Preset:
    """Benchmark settings for one kind of machine.

    Attributes:
        size: shapes of the problem.
        dtype: data type of the weights.
        rounds: number of timed runs per case.
        loss_chunk: token positions per chunk of logits, in cases that use chunks.
        chunk: examples per chunk, in cases that use chunks.
        wide: number of examples in rows that show the effect of `chunk`.
        torch: whether to run the PyTorch peers.
        float64: whether to compute relative errors against float64.
    """

    size: problem.Size
    dtype: str = "float32"
    rounds: int = 3
    loss_chunk: int = 32
    chunk: int = 4
    wide: int = 48
    torch: bool = False
    float64: bool = True


LLAMA_1B = problem.Size(16, 2048, 8192, 32, 8, 128256, 16, 12, 512, 2)
PRESETS = {
    "tiny": Preset(problem.Size(2, 32, 64, 4, 2, 64, 2, 4, 16, 2), rounds=2, loss_chunk=8, chunk=2, wide=8, torch=True),
    "cpu": Preset(problem.Size(8, 256, 704, 8, 4, 4096, 8, 12, 128, 2), torch=True),
    "gpu": Preset(LLAMA_1B, "bfloat16", rounds=10, loss_chunk=128, float64=False),
    "tpu": Preset(LLAMA_1B, "bfloat16", rounds=10, loss_chunk=128, float64=False),
}
LEARNING_RATES = {"sgd": 0.1, "adamw": 1e-3, "adam": 1e-3}


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        adjoint: name in `ADJOINTS`, or a peer.
        optimizer: name in `mg.SUPPORT`, with its rate in `LEARNING_RATES`.
        remat: rematerialization of blocks: "block" recomputes all, "dots" all but products with weights.
        loss_chunk: token positions per chunk of logits; 0 means all.
        chunk: examples per chunk of gradients; None means all.
        product_chunk: examples per chunk of Hessian products; None uses `chunk`.
        num_steps: number of inner steps.
        examples: number of examples; 0 uses the preset's.
        timed: whether to run the case, or only to compile it.
    """

    adjoint: str
    optimizer: str = "sgd"
    remat: str = "none"
    loss_chunk: int = 0
    chunk: int | None = None
    product_chunk: int | None = None
    num_steps: int = 2
    examples: int = 0
    timed: bool = True

    @property
    def policy(self) -> str:
        """Describes the policies; "plain" if there are none."""
        parts = [f"{self.remat} remat"] if self.remat != "none" else []
        parts += [f"loss_chunk={self.loss_chunk}"] if self.loss_chunk else []
        parts += [f"chunk={self.chunk}"] if self.chunk else []
        parts += [f"product_chunk={self.product_chunk}"] if self.product_chunk else []
        return ", ".join(parts) or "plain"


ADJOINTS: dict[str, mg.Adjoint] = {
    "ReverseUnroll": mg.ReverseUnroll(),
    "ReverseUnroll(step)": mg.ReverseUnroll("step"),
    "ReverseUnroll(save_grads)": mg.ReverseUnroll("save_grads"),
    "MixedMode": mg.MixedMode(),
    "WeightedMixedMode": mg.WeightedMixedMode(),
    "WeightedMixedMode(recursive)": mg.WeightedMixedMode("recursive"),
    "FirstOrder": mg.FirstOrder(),
}
PLAIN_JAX = "peer: plain JAX"


def cases(preset: Preset) -> list[Case]:
    """Returns the measurements of a preset."""
    chunk, wide = preset.chunk, preset.wide
    half = preset.size.examples // 2
    lean = functools.partial(Case, remat="block", loss_chunk=preset.loss_chunk)
    rows = [Case("ReverseUnroll"), Case("ReverseUnroll(step)"), Case("ReverseUnroll", remat="block")]
    rows += [Case("MixedMode"), Case("WeightedMixedMode"), Case("FirstOrder")]
    for optimizer in ("sgd", "adamw"):
        each = functools.partial(lean, optimizer=optimizer, timed=optimizer == "sgd")
        rows += [each("ReverseUnroll(step)"), each("MixedMode"), each("WeightedMixedMode")]
        rows += [each("WeightedMixedMode", product_chunk=half), each("FirstOrder")]
    rows += [lean("ReverseUnroll(save_grads)", timed=False), Case("ReverseUnroll", "adamw", timed=False)]
    for adjoint in ("ReverseUnroll(step)", "MixedMode", "WeightedMixedMode", "FirstOrder"):
        rows += [lean(adjoint, chunk=chunk), Case(adjoint, remat="dots", chunk=chunk)]
    rows += [Case("ReverseUnroll(step)", chunk=size) for size in (chunk, chunk // 2)]
    both = functools.partial(lean, "WeightedMixedMode", chunk=chunk, product_chunk=chunk // 2)
    rows += [both(), both(num_steps=8, timed=False), both(examples=wide, timed=False)]
    return [*rows, Case(PLAIN_JAX)]


# nick-rui/metagrad-distill reports, for all parameters of GPT-2 124M with Adam, 52.1 GB of an 80 GB H100 at k=64,
# L=128, T=16, and out of memory at k=96, or L=256, or T=32. These are the same shapes on a Llama of 124M parameters;
# they are compiled and never run.
WALL = problem.Size(12, 768, 2048, 12, 12, 50257, 0, 64, 128, 8, tied=True)
WALL_CASES = (
    (WALL, Case("WeightedMixedMode(recursive)", "adam", "block", 32, 8, 4, 16)),
    (
        dataclasses.replace(WALL, examples=96, tokens=256),
        Case("WeightedMixedMode(recursive)", "adam", "block", 32, 8, 4, 32),
    ),
    (WALL, Case("ReverseUnroll(step)", "adam", "block", 32, 8, None, 16)),
    # Compilation time of a deep model.
    (
        dataclasses.replace(PRESETS["cpu"].size, layers=32),
        Case("WeightedMixedMode", "sgd", "block", 32),
    ),
)


def function_of(case: Case, size: problem.Size) -> Callable[[problem.Data], jax.Array]:
    """Returns the gradient with respect to the example weights as a function of the arrays of the problem."""
    optimizer = mg.make_optimizer(case.optimizer, LEARNING_RATES[case.optimizer])
    if case.adjoint == PLAIN_JAX:
        return lambda data: plain_jax.weight_gradient(size, data, optimizer, case.num_steps)

    def gradient(data: problem.Data) -> jax.Array:
        losses_of = problem.example_losses(size, data.base, case.remat, case.loss_chunk)
        return mg.meta_gradient(
            mg.WeightedLoss(losses_of, chunk=case.chunk, product_chunk=case.product_chunk),
            lambda params, outer_BT: jnp.mean(losses_of(params, outer_BT)),
            data.params,
            data.weights_M,
            data.tokens_MT,
            data.outer_BT,
            optimizer=optimizer,
            num_steps=case.num_steps,
            adjoint=ADJOINTS[case.adjoint],
        ).meta

    return gradient


def compile_case(case: Case, size: problem.Size, dtype: str) -> tuple[Any, dict[str, Any]]:
    """Compiles a case; returns the executable and the row without times."""
    shapes = jax.eval_shape(lambda key: problem.draw(key, size, dtype), jax.random.key(0))
    lowered = jax.jit(function_of(case, size)).lower(shapes)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    row = row_of(case, size, dtype, temp_bytes=memory.temp_size_in_bytes, compile_seconds=seconds)
    logging.info("compiled %s, %s, %s: %.1f MiB in %.0f s", case.adjoint, case.policy, case.optimizer,
                 row["temp_bytes"] / 2**20, seconds)  # fmt: skip
    return compiled, row


def row_of(case: Case, size: problem.Size, dtype: str, **measured: Any) -> dict[str, Any]:
    """Returns the row of a case, with None for values that are not measured yet."""
    adapted = f"LoRA rank {size.rank}" if size.rank else "all parameters"
    return {
        "adjoint": case.adjoint,
        "policy": case.policy,
        "optimizer": case.optimizer,
        "model": f"Llama {size.layers}x{size.width}, vocabulary {size.vocab}, {adapted}",
        "K": case.num_steps,
        "m": size.examples,
        "tokens": size.tokens,
        "dtype": dtype,
        "temp_bytes": None,
        "seconds": None,
        "compile_seconds": None,
        "rel_error": None,
        **measured,
    }


class Bench:
    """Problem of one preset, sampled once.

    Args:
        preset: settings of the benchmark.
    """

    def __init__(self, preset: Preset):
        self.preset = preset
        self.data = jax.jit(lambda key: problem.draw(key, preset.size, preset.dtype))(jax.random.key(0))
        self._references: dict[str, np.ndarray] = {}

    def size_of(self, case: Case) -> problem.Size:
        """Returns the size of the preset with the number of examples of the case."""
        return dataclasses.replace(self.preset.size, examples=case.examples or self.preset.size.examples)

    def reference(self, optimizer: str) -> np.ndarray:
        """Returns the gradient by ReverseUnroll in float64 on the same values, computed once per optimizer."""
        if optimizer not in self._references:
            with jax.enable_x64(True):
                wide = jax.tree.map(lambda x: x.astype("float64") if x.dtype == jnp.float32 else x, self.data)
                case = Case("ReverseUnroll(step)", optimizer, remat="block", loss_chunk=self.preset.loss_chunk)
                self._references[optimizer] = np.asarray(jax.jit(function_of(case, self.preset.size))(wide))
        return self._references[optimizer]


class Run(NamedTuple):
    """An unfinished row, the call that it measures, and whether its relative error is needed."""

    row: dict[str, Any]
    call: Callable[[], Any]
    compared: bool


def measure(preset: Preset, rows: Rows) -> None:
    """Measures what is missing in `rows`, which save every compilation, timing round and error at once.

    In a timing round every case runs once, so that finished rounds of an interrupted run stay comparable.

    Args:
        preset: settings of the benchmark.
        rows: finished rows, to which new ones are added.
    """
    bench = Bench(preset)
    timed = [case for case in cases(preset) if case.timed]
    if any(row is None or not row["seconds"] for row in (rows.get(_name(bench, case)) for case in timed)):
        runs = [_compiled(bench, case, rows) for case in timed]
        runs += _torch_runs(bench, rows) if preset.torch else []
        _time(runs, preset.rounds, rows)
        _errors(bench, runs, rows)
    for case in cases(preset):
        row = rows.get(_name(bench, case))
        if row is None or (_compared(bench, case) and row["rel_error"] is None):
            _errors(bench, [_compiled(bench, case, rows)], rows)


def measure_wall(rows: Rows) -> None:
    """Compiles the cases of the `wall` preset that are missing in `rows`."""
    for size, case in WALL_CASES:
        if rows.get(row_of(case, size, "float32")) is None:
            rows.keep(compile_case(case, size, "float32")[1])


def _compiled(bench: Bench, case: Case, rows: Rows) -> Run:
    """Compiles a case and saves its row; earlier measurements of it are kept."""
    compiled, row = compile_case(case, bench.size_of(case), bench.preset.dtype)
    row |= {name: value for name, value in (rows.get(row) or {}).items() if value is not None}
    rows.keep(row)
    return Run(row, functools.partial(compiled, bench.data), _compared(bench, case))


def _compared(bench: Bench, case: Case) -> bool:
    """Returns whether a case can be compared with the float64 reference."""
    return bench.preset.float64 and case.num_steps == 2 and bench.size_of(case) == bench.preset.size


def _name(bench: Bench, case: Case) -> dict[str, Any]:
    return row_of(case, bench.size_of(case), bench.preset.dtype)


def _torch_runs(bench: Bench, rows: Rows) -> list[Run]:
    try:
        from third_party.peers import torch_peers
    except ImportError:
        logging.info("torch is not installed; its peers are left out")
        return []
    runs = []
    for name, peer in torch_peers.PEERS.items():
        run = functools.partial(peer, bench.preset.size, bench.data, 0.1, 2)
        try:
            run()
        except ImportError as error:
            logging.info("peer %s is left out: %s", name, error)
            continue
        row = _name(bench, Case(f"peer: {name}"))
        runs.append(Run(rows.get(row) or row, run, bench.preset.float64))
    return runs


def _time(runs: Sequence[Run], rounds: int, rows: Rows) -> None:
    """Fills in medians of interleaved runs; the first run of each is a warm-up."""
    done = min(len(run.row.get("times", ())) for run in runs)
    for run in runs:
        run.row["times"] = run.row.get("times", [])[:done]
        jax.block_until_ready(run.call())
    for turn in range(done, rounds):
        seconds = []
        for run in runs:
            start = time.perf_counter()
            jax.block_until_ready(run.call())
            seconds.append(time.perf_counter() - start)
        for run, each in zip(runs, seconds, strict=True):
            run.row["times"] = [*run.row["times"], each]
        rows.keep(*(run.row for run in runs))
        logging.info("round %d of %d", turn + 1, rounds)
    for run in runs:
        run.row["seconds"] = statistics.median(run.row["times"])
    rows.keep(*(run.row for run in runs))


def _errors(bench: Bench, runs: Sequence[Run], rows: Rows) -> None:
    """Fills in the relative errors that are needed and missing."""
    wanted = [run for run in runs if run.compared and run.row["rel_error"] is None]
    references = {name: bench.reference(name) for name in {run.row["optimizer"] for run in wanted}}
    for run in wanted:
        exact = references[run.row["optimizer"]]
        run.row["rel_error"] = float(np.linalg.norm(np.asarray(run.call()) - exact) / np.linalg.norm(exact))
        rows.keep(run.row)
