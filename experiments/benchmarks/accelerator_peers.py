"""Measures the peers of the accelerator benchmark in PyTorch, at the same shapes and on the same device.

    python -m experiments.benchmarks.accelerator_peers --preset=cpu --out=runs/accelerator

PyTorch's double backward with eager attention at the 1B shape, and transformers.generate at the 8B shape, with random
weights. Rows are added to those of `experiments.benchmarks.accelerator` in OUT. JAX only describes shapes here, so it
should run on the CPU (JAX_PLATFORMS=cpu).
"""

import functools
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import torch
from absl import flags

from experiments import settings
from experiments.benchmarks import accelerator_report
from experiments.benchmarks.accelerator_cases import REPEATS, Bilevel, Models
from experiments.benchmarks.accelerator_run import NOT_REACHED, Row, Rows, in_one_line
from experiments.benchmarks.accelerator_shapes import PRESETS, Preset
from experiments.benchmarks.metagrad_cases import RATES
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.metagrad.benchmark_runs import Budget
from third_party.peers import torch_llama, torch_peers

FLAGS = flags.FLAGS
_STEPS = 2  # inner steps


def measure(preset: Preset, out: pathlib.Path, budget: Budget) -> None:
    """Measures all peers, writes their rows, and then the results with those rows.

    Args:
        preset: the shapes.
        out: directory of the results.
        budget: no case begins after its end.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    rows = Rows(out / accelerator_report.LINES, {"device": name, "torch": torch.__version__})
    most = preset.tasks[0] * preset.samples
    cases: dict[str, Callable[[], Row]] = {
        f"1B: PyTorch double backward, m={preset.few_examples}": functools.partial(double_backward, preset, device)
    }
    generator = functools.cache(functools.partial(_generator, preset, device))
    for samples in (most, preset.samples):
        label = f"8B: transformers.generate, {samples} samples, no adapter"
        cases[label] = functools.partial(generate, preset, device, generator, samples)
    for label, case in cases.items():
        if not budget.left():
            rows.write(label, {"error": NOT_REACHED})
            continue
        try:
            rows.write(label, case())
        except Exception as error:  # the other peers are worth measuring
            rows.write(label, {"error": in_one_line(error)})
    print(accelerator_report.write(out), flush=True)


def timed(call: Callable[[], Any], device: str) -> Row:
    """Returns the median and all times of a call after a warm-up, and the peak of allocated memory on a GPU."""
    times = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = {"peak_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {}
    return {"seconds": statistics.median(times[1:]), "times": times[1:]} | peak


def double_backward(preset: Preset, device: str) -> Row:
    """Times the meta-gradient of the 1B shape by double backward."""
    bilevel = Bilevel(preset, "1B", preset.medium, preset.few_examples, Models())
    shapes = bilevel.shapes()

    def make(leaf: jax.ShapeDtypeStruct) -> torch.Tensor:
        dtype = getattr(torch, str(leaf.dtype))
        return torch.randn(leaf.shape, dtype=dtype, device=device) * 0.02

    model = torch_llama.TorchLlama(bilevel.size, shapes, make)
    weights_M = torch.full(shapes.weights_M.shape, 1 / bilevel.examples, device=device, requires_grad=True)
    tokens_MT, outer_BT = (
        torch.randint(0, bilevel.config.vocab_size, leaf.shape, device=device)
        for leaf in (shapes.tokens_MT, shapes.outer_BT)
    )
    args = model, weights_M, tokens_MT, outer_BT, RATES["sgd"], _STEPS
    return timed(lambda: torch_peers.weight_gradient(*args), device)


def _generator(preset: Preset, device: str) -> Any:
    """Returns a model of transformers with random weights in bfloat16."""
    import transformers

    config = transformers.LlamaConfig.from_dict(preset.large.to_dict())
    with torch.device(device):
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval()


def generate(preset: Preset, device: str, model: Callable[[], Any], samples: int) -> Row:
    """Times transformers.generate on as many prompts as there are samples."""
    shape = samples, preset.prompt_tokens
    prompts = torch.randint(3, preset.large.vocab_size, shape, device=device)
    new = preset.new_tokens
    limits = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 2}

    def call() -> Any:
        with torch.no_grad():
            return model().generate(prompts, attention_mask=torch.ones_like(prompts), **limits)

    row = timed(call, device)
    return row | {"tokens_per_second": samples * new / row["seconds"]}


def command(_: runtime.Stop) -> None:
    """Measures the preset of the flags."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/accelerator")
    torch.manual_seed(0)
    measure(PRESETS[FLAGS.preset], pathlib.Path(FLAGS.out), Budget(60 * FLAGS.minutes))


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    flags.DEFINE_enum("preset", "cpu", sorted(PRESETS), "Shapes of the cases.")
    flags.DEFINE_float("minutes", 5.0, "No case begins after this many minutes.", lower_bound=0.0)
    DEFINE_path("out", None, "Directory for the results; rows are added to those that are there.")


if __name__ == "__main__":
    define()
    settings.run(main)
