"""Identity of an update: hashes of weights, tokenizer files, code, settings, policy and platform."""

import functools
import hashlib
import importlib.metadata
import pathlib
import platform
from typing import Any

import jax

import mass_jax
from mass_jax.audit.chain import canonical, sha256
from mass_jax.method.models import Weights
from mass_jax.serving.adaptation import tree_sha256

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "tokenizers")
# Files beside the weights that decide prompts and where completions end.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def identity(weights: Weights, directory: pathlib.Path, settings_json: str, policy_json: str) -> dict[str, Any]:
    """Returns hashes of everything that decides an adapter's bits, besides the question.

    Args:
        weights: base weights and trained parameters.
        directory: directory of the tokenizer.
        settings_json: settings of the run.
        policy_json: the operator's policy.
    """
    return {
        "weights": tree_sha256(weights),
        "tokenizer": tokenizer_sha256(directory),
        "code": code_sha256(),
        "settings": sha256(settings_json.encode()),
        "policy": sha256(policy_json.encode()),
        "platform": sha256(canonical(platform_of())),
    }


def tokenizer_sha256(directory: pathlib.Path) -> str:
    """Returns the SHA-256 of those `TOKENIZER_FILES` that a directory has, with their names."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (directory / name).is_file():
            digest.update(name.encode() + b"\0" + (directory / name).read_bytes())
    return digest.hexdigest()


@functools.cache
def code_sha256() -> str:
    """Returns the SHA-256 of every source file of this package, with their names."""
    root = pathlib.Path(mass_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def platform_of() -> dict[str, Any]:
    """Returns the device and library versions, on which bits may depend."""
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "device": f"{device.platform} {device.device_kind}",
        "machine": platform.machine(),
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    """Name of the processor; XLA compiles for the exact model."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
