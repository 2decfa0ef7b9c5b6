"""Readers of single settings in config.json and generation_config.json."""

import reprlib
from collections.abc import Mapping
from typing import Any

from mass_jax.errors import UserError
from mass_jax.llama import values
from mass_jax.llama.rope import ROPE_KEYS

# Settings that do not affect the computation.
_INERT = frozenset(
    {
        "architectures", "auto_map", "chunk_size_feed_forward", "dtype", "id2label", "is_decoder", "is_encoder_decoder",
        "is_llama_config", "label2id", "model_type", "name_or_path", "output_attentions", "output_hidden_states",
        "pretraining_tp", "problem_type", "return_dict", "tokenizer_class", "torch_dtype", "transformers.js_config",
        "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    }
)  # fmt: skip
# Settings of other architectures, with the only value that is supported.
_MUST_BE = {"attention_dropout": 0.0, "rope_interleaved": False}


def read_eos(settings: Mapping[str, Any], vocabulary: int) -> tuple[int, ...]:
    """Returns the end tokens of a parsed config.json or generation_config.json: one, several or none."""
    eos = settings.get("eos_token_id")
    tokens = [read_token("eos_token_id", one, vocabulary) for one in (eos if isinstance(eos, list) else [eos])]
    return tuple(dict.fromkeys(token for token in tokens if token is not None))


def read_token(key: str, value: Any, vocabulary: int) -> int | None:
    """Returns a token id, or None for null or -1, which old files write for null."""
    if value is None or (type(value) is int and value == -1):
        return None
    return values.check(key, value, values.token(vocabulary))


def refuse_unknown(settings: Mapping[str, Any], known: set[str], model_type: str) -> None:
    """Refuses settings that are on and not among `known`, since they may change the computation."""
    for key, value in settings.items():
        off = value is None or value is False or value in ([], {}, "")
        if off or key in known or key in _INERT or key in ROPE_KEYS or key.startswith("_"):
            continue
        if key not in _MUST_BE:
            raise UserError(
                f"config.json sets {key!r} to {reprlib.repr(value)}, which is not a setting of {model_type!r} models: "
                "remove it"
            )
        if value != _MUST_BE[key]:
            raise UserError(f"{key} is {reprlib.repr(value)}, which is not supported: only {_MUST_BE[key]!r} is")
