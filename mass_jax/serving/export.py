"""Writes a model or an adapter to a new directory in the formats of Hugging Face: PEFT, or merged weights.

The directory is renamed into place when it is complete, so an interrupted export leaves nothing under its name.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from mass_jax.errors import UserError
from mass_jax.llama import lora, peft, weights
from mass_jax.method.models import Solver, Weights
from mass_jax.serving.identity import TOKENIZER_FILES
from mass_jax.types import Adapter


def write_merged(
    out: pathlib.Path, solver: Solver, values: Weights, tokenizer: pathlib.Path, inner: Adapter | None = None
) -> None:
    r"""Writes the generator as one set of weights, which `transformers.AutoModelForCausalLM` loads without peft.

    .. math:: W' = W + A_{gen} B_{gen} + A_{inner} B_{inner}

    The sum is rounded to the dtype of the base weights, so that logits may differ from those of the adapter by that.

    Args:
        out: directory to create.
        solver: the language model.
        values: base weights and trained parameters.
        tokenizer: directory whose tokenizer files are copied.
        inner: adapter of one question, merged as well.

    Raises:
        UserError: the directory exists or cannot be written.
    """
    adapter, params = solver.adapter(values, inner), solver.params(values)
    with new_directory(out) as directory:
        weights.save(directory, params if adapter is None else lora.merge(params, adapter), solver.config)
        copy_tokenizer(tokenizer, directory)


def write_adapter(
    out: pathlib.Path, solver: Solver, values: Weights, tokenizer: pathlib.Path, inner: Adapter | None, trained: bool
) -> None:
    """Writes the generator's adapter, a question's adapter, or both as one, in PEFT format.

    Args:
        out: directory to create.
        solver: the language model.
        values: base weights and trained parameters.
        tokenizer: directory whose tokenizer files are copied with a base.
        inner: adapter of one question; None writes the generator's alone.
        trained: whether meta-training changed the weights under the adapter. They are then written to OUT/base.

    Raises:
        UserError: the model has no adapter, or its projections differ in rank; the directory exists or cannot be
            written.
    """
    adapter = solver.adapter(values, inner)
    if adapter is None:
        raise UserError("the generator is trained in full and has no adapter; give --format=merged, or an --event")
    with new_directory(out) as directory:
        peft.save(directory, adapter)
        if trained and solver.generator == "full":  # the adapter is useless without them
            weights.save(directory / "base", solver.params(values), solver.config)
            copy_tokenizer(tokenizer, directory / "base")


def check_new(out: pathlib.Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
        UserError: `out` exists, unless it is an empty directory.
    """
    empty = out.is_dir() and not out.is_symlink() and not any(out.iterdir())
    if os.path.lexists(out) and not empty:
        raise UserError(f"--out={out} exists; give a new directory")


@contextlib.contextmanager
def new_directory(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context with a temporary directory that becomes `out` at the end; an error removes it.

    Raises:
        UserError: `out` exists, unless it is an empty directory, or it cannot be written.
    """
    check_new(out)
    target = pathlib.Path(os.path.realpath(out))  # "." has no name
    temporary = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if target == pathlib.Path.cwd():  # a rename would leave the user's shell in a removed directory
                for path in temporary.iterdir():
                    path.replace(target / path.name)
            else:
                temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written ({error.strerror}); choose another") from None


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the files that decide prompts and where completions end, as far as they exist."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
