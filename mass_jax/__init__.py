"""Test-time meta-adaptation with self-synthesis (MASS) in JAX, with exact mixed-mode meta-gradients.

Libraries:
    metagrad: Meta-gradients through an optax inner loop, with interchangeable adjoints.
    llama: Llama in Flax, LoRA adapters, and files in Hugging Face format; `load` returns model, params and tokenizer.
    sampling: Many samples per prompt from a Llama, with a different adapter for each prompt.
    serving: Answers questions with per-question adaptation, guards, an audit trail and replay.

The method and its runs:
    method: MASS as pure functions: generate, score, adapt, outer loss, policy gradient, meta-step.
    training: Builds the components of a run from a `Config` and runs the training loops.
    evaluation: Evaluates every method and builds the report.
    planning: Estimates memory per chip for devices that are not attached.

Infrastructure:
    tasks: Problems, prompts, parsers and graders, in plain Python.
    audit: The tamper-evident event log: hash chain, texts, answers and page.
    runtime: Meshes, processes, checkpoints, metrics, signals, work directories and JSON Lines.
    render: HTML templates and figure style.
    stats: Intervals, paired tests and ranking quality.
    config: All settings of a run, in the dataclass `Config`.
    errors: Errors caused by invalid user input.

Everything is imported on first use. `metagrad` needs jax, optax, numpy and chex; the rest needs `mass_jax[train]`, and
mathematics problems need `mass_jax[math]`.

Example:
    >>> import mass_jax as mass
    >>> mass.Config(task="families").task
    'families'
"""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax import (
        audit,
        config,
        errors,
        evaluation,
        llama,
        metagrad,
        method,
        planning,
        render,
        runtime,
        sampling,
        serving,
        stats,
        tasks,
        training,
    )
    from mass_jax.config import Config

__version__ = "0.2.0"
__all__ = [
    "Config",
    "__version__",
    "audit",
    "config",
    "errors",
    "evaluation",
    "llama",
    "metagrad",
    "method",
    "planning",
    "render",
    "runtime",
    "sampling",
    "serving",
    "stats",
    "tasks",
    "training",
]
_CORE = ("config", "errors", "metagrad")
__getattr__ = lazy.attach(
    __name__, {"Config": "config"} | {name: name for name in __all__ if name not in ("Config", "__version__")}
)[0]


def __dir__() -> list[str]:
    """Returns the public names that can be imported with what is installed, which `help` imports."""
    try:
        lazy.require_extra(__name__, "train")
    except lazy.MissingExtraError:
        return ["Config", "__version__", *_CORE]
    return list(__all__)
