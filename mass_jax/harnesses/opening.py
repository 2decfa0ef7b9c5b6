"""Opens the model that the arguments of a harness describe."""

from typing import Any

import jax.numpy as jnp

from mass_jax.errors import UserError
from mass_jax.harnesses.options import Options
from mass_jax.harnesses.plain import PlainModel, positions
from mass_jax.harnesses.questions import QuestionModel
from mass_jax.llama import loading, tokenizer
from mass_jax.runtime.compilation_cache import AUTO, use_compilation_cache
from mass_jax.serving import load, source


def open_model(options: Options) -> PlainModel | QuestionModel:
    """Loads a model.

    Args:
        options: the arguments.

    Raises:
        UserError: a file is missing or damaged, or an argument is invalid.
    """
    use_compilation_cache(AUTO)
    try:
        if options.poses:
            return _questions(options)
        return _pretrained(options) if options.workdir is None else _run(options)
    except OSError as error:
        raise UserError(str(error)) from error


def _questions(options: Options) -> QuestionModel:
    """Loads a model that poses questions."""
    adapters: dict[str, Any] = {}
    service = load(
        options.source,
        run=options.run,
        train_seed=options.train_seed,
        policy_file=options.policy,
        log=options.log,
        seed=options.seed,
        batch=options.batch_size,
        adapt=options.adapt,
        own_task=options.task,
        on_adapter=adapters.__setitem__,
        inner_optimizer=options.inner_optimizer,
    )
    return QuestionModel(service, adapters)


def _pretrained(options: Options) -> PlainModel:
    """Loads pretrained weights, without a task."""
    name = options.dtype or "float32"
    if name not in ("float32", "bfloat16", "float16"):
        raise UserError(f"dtype={name!r} is unknown; give float32, bfloat16 or float16")
    loaded = loading.load(options.source, dtype=jnp.dtype(name))
    end = tokenizer.end_token(loaded.tokenizer, loaded.model.config)
    return PlainModel(
        loaded.model,
        loaded.params,
        None,
        loaded.tokenizer,
        loaded.model.config.with_stop_tokens([end]).stop_tokens,
        options.batch_size,
        options.max_length or positions(loaded.model.config),
        options.seed,
        f"{options.source}, {name}",
    )


def _run(options: Options) -> PlainModel:
    """Loads the trained generator of a workdir, to continue texts with it."""
    found = source.load_model(options.source, options.run, options.train_seed, own_task=options.task, adapts=False)
    found.chosen.close()
    solver = found.rollouts.solver
    return PlainModel(
        solver.model,
        solver.params(found.weights),
        solver.adapter(found.weights),
        found.rollouts.dialogue.tokenizer,
        solver.config.stop_tokens,
        options.batch_size,
        options.max_length or positions(solver.config),
        options.seed,
        found.label,
    )
