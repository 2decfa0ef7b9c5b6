"""Shapes and cases of `experiments.bench_metagrad` from flags."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from experiments.benchmarks.metagrad_cases import Case, Preset, rate_of
from mass_jax import metagrad as mg
from mass_jax.config.adjoint import ADJOINT_REMATS, SWEEP_REMATS, AdjointSettings
from mass_jax.config.fields import nearest
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig
from mass_jax.llama.published import PUBLISHED
from mass_jax.method.groups import divisor
from mass_jax.planning.shapes import shape_of
from third_party.peers import problem

LIMITS = {"example_chunk": "chunk", "product_chunk": "product_chunk", "loss_chunk": "loss_chunk"}
STORED = ("none", *SWEEP_REMATS)
FORMS = ("plain", *STORED, "remat:dots", "remat:block", *(f"{n}:4" for n in LIMITS))
DEFAULT_ADJOINTS = ("weighted", "first_order", "mixed", "reverse")


def own_preset(base: Preset, given: Mapping[str, Any]) -> Preset:
    """Returns a preset with the values of the flags that were given.

    Args:
        base: the preset whose other values are kept.
        given: values of flags by name, without those that were not given.

    Raises:
        UserError: a value does not fit the others; one line with the flag and the fix.
    """
    size = _size(base.size, given)
    tasks, steps = given.get("tasks", base.tasks), given.get("inner_steps", base.inner_steps)
    optimizer = given.get("inner_optimizer", base.optimizer)
    try:
        mg.parse_optimizer(optimizer, rate_of(optimizer))
    except UserError as error:
        raise UserError(f"--inner_optimizer={optimizer!r}: {error}") from None
    own: tuple[Case, ...] = ()
    if "adjoints" in given or "policies" in given or "hf_config" in given:
        own = own_cases(given.get("adjoints", DEFAULT_ADJOINTS), given.get("policies", ("plain",)), size.examples)
        own = tuple(dataclasses.replace(case, optimizer=optimizer, num_steps=steps) for case in own)
    changes = {"dtype": given.get("dtype", base.dtype), "rounds": given.get("rounds", base.rounds)}
    changes["float64"] = given.get("errors", base.float64 and "hf_config" not in given)
    changes["torch"] = given.get("peers", base.torch and not own)
    changed = dataclasses.replace(
        base, size=size, tasks=tasks, inner_steps=steps, optimizer=optimizer, own=own, **changes
    )
    if given.get("peers") and not changed.has_peers:
        raise UserError("--peers needs --inner_optimizer=sgd, --tasks=1 and no --hf_config; leave it out")
    return changed


def _size(size: problem.Size, given: Mapping[str, Any]) -> problem.Size:
    """Returns a size with the values of the flags."""
    if "hf_config" in given:
        size = _of_architecture(_architecture(given["hf_config"]), size)
    if "width" in given:
        size = _with_width(size, given["width"])
    names = {"layers": "layers", "tokens": "tokens", "examples": "examples", "lora_rank": "rank"}
    size = dataclasses.replace(size, **{field: given[flag] for flag, field in names.items() if flag in given})
    size.config()  # raises if the architecture does not fit together
    return size


def _architecture(path: str) -> LlamaConfig:
    """Reads the architecture of a directory, a config.json or a published model.

    Raises:
        UserError: there is none.
    """
    try:
        if path in PUBLISHED:
            return shape_of(path)
        file = pathlib.Path(path)
        return LlamaConfig.from_directory(file.parent if file.name == "config.json" else file)
    except FileNotFoundError:
        known = ", ".join(PUBLISHED)
        raise UserError(f"--hf_config={path!r} has no config.json; give its directory, or one of {known}") from None


def _of_architecture(config: LlamaConfig, size: problem.Size) -> problem.Size:
    """Returns a size with the architecture of a Hugging Face model."""
    return dataclasses.replace(
        size,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        ff=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        vocab=config.vocab_size,
        tied=config.tie_word_embeddings,
        architecture=config,
    )


def _with_width(size: problem.Size, width: int) -> problem.Size:
    """Returns a size with another width; heads keep their size, and the other widths their ratio to it.

    Raises:
        UserError: the width is not a multiple of the size of a group of heads.
    """
    if size.architecture is not None:
        raise UserError(f"--width={width} does not apply to --hf_config, which has a width; leave one of them out")
    unit = size.width // size.kv_heads  # one key-value head and the query heads that share it
    if width % unit:
        raise UserError(f"--width={width} is not a multiple of {unit}, the query heads that share a key-value head")
    groups, shared = width // unit, size.heads // size.kv_heads
    features = max(8 * round(size.ff * width / size.width / 8), 8)
    return dataclasses.replace(size, width=width, ff=features, heads=groups * shared, kv_heads=groups)


def own_cases(adjoints: Sequence[str], policies: Sequence[str], examples: int) -> tuple[Case, ...]:
    """Returns the combinations of adjoints and policies; those that do not apply are left out.

    Args:
        adjoints: values of `--adjoint`, most wanted first.
        policies: policies, most wanted first: parts from `FORMS` joined by `+`, such as "step+example_chunk:2".
        examples: number of examples; a chunk is its largest divisor up to the given limit.

    Raises:
        UserError: a name is unknown, or a policy applies to none of the adjoints.

    >>> [(case.adjoint, case.policy) for case in own_cases(["weighted", "first_order"], ["plain", "step"], 4)]
    [('weighted', 'plain'), ('first_order', 'plain'), ('weighted', 'step')]
    """
    names = [text.strip() for text in adjoints]
    for name in names:
        try:
            _ = AdjointSettings(adjoint=name).parsed_adjoint
        except ValueError as error:
            raise UserError(str(error).replace("--adjoint=", "--adjoints: ")) from None
    found: dict[str, Case] = {}
    for text in policies:
        options = _policy(text.strip(), examples)
        chosen = [Case(name, **options) for name in names if _applies(name, options)]
        if not chosen:
            raise UserError(f"--policies: {text!r} applies to none of {', '.join(names)}; leave it out")
        if len(chosen) < len(names):
            left = [name for name in names if not _applies(name, options)]
            logging.info("policy %s does not apply to %s", text, ", ".join(left))
        found |= {case.label: case for case in chosen}
    return tuple(found.values())


def _applies(adjoint: str, options: Mapping[str, Any]) -> bool:
    """Returns whether an adjoint has the options of a policy."""
    name = adjoint.partition(":")[0]
    remat = options.get("adjoint_remat", "auto")
    if options.get("product_chunk") and name not in ("weighted", "truncated"):
        return False
    return remat == "auto" or remat in ADJOINT_REMATS[name]


def _policy(text: str, examples: int) -> dict[str, Any]:
    """Parses a policy into fields of `Case`."""
    options: dict[str, Any] = {}
    for part in text.split("+"):
        name, _, value = part.strip().partition(":")
        if name in LIMITS and value.isdecimal() and int(value):
            limit = int(value)
            options[LIMITS[name]] = limit if name == "loss_chunk" else divisor(examples, limit)
        elif name == "remat" and value in ("dots", "block", "none"):
            options["remat"] = value
        elif name in STORED and not value:
            options["adjoint_remat"] = name
        elif part.strip() != "plain":
            raise UserError(f"--policies: {part.strip()!r} is unknown; {nearest(part.strip(), FORMS)}")
    return options
