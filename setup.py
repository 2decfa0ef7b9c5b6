"""mass_jax: test-time Meta-Adaptation with Self-Synthesis (MASS) in JAX."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent

# One table of every library we lean on: (requirement, why it is here, extras that need it; "" is always).
# Lower bounds, but for torch, of which this one is a CPU build. pip picks jax 0.10 and flax 0.12.8 on Python 3.11, the
# newest of both on 3.12+.
DEPENDENCIES = (
    ("jax>=0.10.2", "arrays, autodiff, jit, sharding", ("",)),
    ("numpy>=2.0", "host arrays", ("",)),
    ("scipy>=1.13", "ranks, for areas under curves", ("",)),
    ("filelock>=4.3", "the lock of a workdir", ("",)),
    ("huggingface_hub>=1.0", "models by hub id", ("",)),
    ("flax>=0.12.8", "the Llama module, in Linen", ("",)),
    ("optax>=0.2.8", "inner and outer optimizers", ("",)),
    ("chex>=0.1.92", "assertions on shapes and trees", ("",)),
    ("orbax-checkpoint>=0.12.8", "checkpoints (its v1 API)", ("",)),
    ("transformers>=5.0", "tokenizers and chat templates", ("",)),
    ("jinja2>=3.1.6", "renders HTML pages and chat templates; transformers does not require it itself", ("",)),
    ("tokenizers>=0.22", "builds the testbed's tokenizer.json", ("",)),
    ("safetensors>=0.6", "weights in Hugging Face files; nothing is unpickled", ("",)),
    ("datasets>=5.0", "problem sets by hub id or local path", ("",)),
    ("math-verify[antlr4-13-2]>=0.9", "reads answers in LaTeX, inside the verifier's worker processes", ("",)),
    ("sympy>=1.13", "symbolic answers, inside the verifier's worker processes", ("",)),
    ("google-re2>=1.1", "regular expressions in linear time, for text that a model wrote", ("",)),
    ("absl-py>=2.1", "command-line flags and logging", ("",)),
    ("matplotlib>=3.9", "figures", ("",)),
    ("tqdm>=4.66", "progress bars on terminals", ("",)),
    ("pytest>=8.3", "test runner", ("test",)),
    ("pytest-xdist>=3.6", "tests on both cores", ("test",)),
    ("hypothesis>=6.100", "random texts for every reader of model text", ("test",)),
    ("torch==2.13.0", "independent implementation to hold ours against; a CPU build", ("test",)),
    ("peft>=0.18", "independent reader of our adapters", ("test",)),
    ("ruff>=0.14", "lint and format", ("test",)),
    ("mypy>=1.18", "type checker", ("test",)),
    ("jax[tpu]", "TPU runtime", ("tpu",)),
    ("jax[cuda12]", "NVIDIA runtime", ("cuda12",)),
    ("gguf>=0.17", "reads SmolLM2 from its PyPI wheel", ("smollm2",)),
    ("libtpu", "the TPU compiler, for planning without a TPU", ("plan",)),
)


def requirements(extra: str) -> list[str]:
    return [name for name, _, extras in DEPENDENCIES if extra in extras]


setup(
    name="mass_jax",
    version="0.1.0",
    description=__doc__.splitlines()[0],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mass_jax*", "experiments*", "third_party*"]),
    package_data={"mass_jax": ["data/tiny/*", "data/audit/*", "**/*.jinja", "**/*.mplstyle"]},
    install_requires=requirements(""),
    extras_require={extra: requirements(extra) for extra in ("test", "tpu", "cuda12", "smollm2", "plan")},
)
