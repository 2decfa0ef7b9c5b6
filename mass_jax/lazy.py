"""Lazy package namespaces, and errors that name the extra of a missing dependency. Standard library only."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

# Optional packages by import name: (distribution, extra of mass_jax that installs it). setup.py has the versions.
OPTIONAL = {
    "absl": ("absl-py", "train"),
    "filelock": ("filelock", "train"),
    "fsspec": ("fsspec", "train"),
    "flax": ("flax", "train"),
    "huggingface_hub": ("huggingface_hub", "train"),
    "jinja2": ("jinja2", "train"),
    "matplotlib": ("matplotlib", "train"),
    "orbax": ("orbax-checkpoint", "train"),
    "pydantic": ("pydantic", "train"),
    "re2": ("google-re2", "train"),
    "safetensors": ("safetensors", "train"),
    "scipy": ("scipy", "train"),
    "tokenizers": ("tokenizers", "train"),
    "tqdm": ("tqdm", "train"),
    "transformers": ("transformers", "train"),
    "datasets": ("datasets", "math"),
    "math_verify": ("math-verify", "math"),
    "sympy": ("sympy", "math"),
    "libtpu": ("libtpu", "plan"),
    "gguf": ("gguf", "smollm2"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "gcsfs": ("gcsfs", "gcs"),
    "s3fs": ("s3fs", "s3"),
    "h11": ("h11", "serve"),
    "starlette": ("starlette", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "lm_eval": ("lm-eval", "lm-eval"),
    "inspect_ai": ("inspect-ai", "inspect"),
    "reasoning_gym": ("reasoning-gym", "reasoning-gym"),
}


class MissingExtraError(ImportError):
    """A module needs a package that an extra of mass_jax installs."""


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Builds `__getattr__`, `__dir__` and `__all__` for a package.

    Args:
        package: `__name__` of the package.
        names: map from public names to the submodules that define them; a name that maps to itself is a submodule.

    Returns:
        The three values, to be assigned in the `__init__` of the package.

    Example:
        >>> __getattr__, __dir__, __all__ = attach("mass_jax", {"Config": "config", "config": "config"})
        >>> __getattr__("Config").__name__, __all__
        ('Config', ['Config', 'config'])
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{names[name]}")
        return module if name == names[name] else getattr(module, name)

    return getattribute, lambda: sorted(names), sorted(names)


def require(module: str, *packages: str) -> None:
    """Checks that optional packages are installed, without importing them.

    A package calls this in its `__init__`, so that importing any of its modules without the extra ends in one line.

    Args:
        module: Name of the module that needs the packages, for the message.
        *packages: Import names, keys of `OPTIONAL`.

    Raises:
        MissingExtraError: If one is not installed; the message has the command that installs it.

    Example:
        >>> require("mass_jax.llama", "flax", "safetensors")
    """
    for package in packages:
        distribution, extra = OPTIONAL[package]
        if importlib.util.find_spec(package) is None:
            message = f'{module} needs {distribution}, which is not installed; run: pip install "mass_jax[{extra}]"'
            raise MissingExtraError(message, name=package)


def require_extra(module: str, extra: str) -> None:
    """Checks that all packages of an extra are installed; raises as `require` does."""
    require(module, *(package for package, (_, its_extra) in OPTIONAL.items() if its_extra == extra))
