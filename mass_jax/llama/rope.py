"""Rotary position embedding (RoPE; Su et al. 2021) with the five scaling types of Llama checkpoints.

Frequencies are constants of the configuration, computed in NumPy float32 as in the reference implementation.

Shape suffixes: B rows, T tokens, N heads, H features per head.
"""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.llama import values
from mass_jax.llama.precision import wide

_SCALED = ("factor",)
# rope_type -> (required keys, optional keys), in addition to rope_type and rope_theta.
_KEYS = {
    "default": ((), ()),
    "linear": (_SCALED, ()),
    "dynamic": (_SCALED, ("original_max_position_embeddings",)),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ("original_max_position_embeddings",)),
    "yarn": (
        _SCALED,
        (
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    ),
}
_VALUES = {
    "rope_type": values.NAME,
    "type": values.NAME,
    "original_max_position_embeddings": values.COUNT,
    "truncate": values.SWITCH,
    "mscale": values.NOT_NEGATIVE,
    "mscale_all_dim": values.NOT_NEGATIVE,
}
ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters")  # top-level keys of config.json


@dataclasses.dataclass(frozen=True)
class Rope:
    """RoPE settings under their Hugging Face names; settings that `rope_type` does not use are None.

    Attributes:
        rope_type: "default", "linear", "dynamic", "llama3" or "yarn".
        rope_theta: base of the geometric series of wavelengths.
        factor: ratio of the extended context length to the original one.
        original_max_position_embeddings: context length before the extension; None is the model's.
        low_freq_factor: llama3, wavelengths above the original length over this are scaled in full.
        high_freq_factor: llama3, wavelengths below the original length over this are not scaled.
        attention_factor: yarn, factor on cosine and sine; None computes it.
        beta_fast: yarn, rotations over the original length above which a dimension is not scaled; None is 32.
        beta_slow: yarn, rotations below which a dimension is scaled in full; None is 1.
        mscale: yarn, weight of the growth of `attention_factor`.
        mscale_all_dim: yarn, weight of the growth that `mscale` is relative to.
        truncate: yarn, whether the bounds of the ramp are rounded to whole dimensions; None is true.
    """

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Rope":
        """Parses the `rope_parameters` of a config.json.

        Args:
            settings: the parsed object; null values are ignored.

        Raises:
            UserError: the type is unknown, or a key is unknown or missing.
        """
        settings = {key: value for key, value in settings.items() if value is not None}
        kind = settings.pop("type", "default")
        kind = settings.setdefault("rope_type", kind)
        if kind not in _KEYS:
            raise UserError(f"rope_type {kind!r} is not supported: use one of {', '.join(_KEYS)}")
        if settings.pop("partial_rotary_factor", 1.0) != 1.0:
            raise UserError("partial_rotary_factor must be 1.0: remove it")
        required, optional = _KEYS[kind]
        missing = [key for key in required if key not in settings]
        unknown = sorted(set(settings) - {"rope_type", "rope_theta", *required, *optional})
        if missing:
            raise UserError(f"rope_type {kind!r} needs {missing[0]!r}: add it to rope_parameters")
        if unknown:
            raise UserError(f"rope_type {kind!r} does not use {unknown[0]!r}: remove it from rope_parameters")
        return cls(**settings)

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], default_theta: float = 10000.0) -> "Rope":
        """Parses RoPE from a config.json in either format.

        These are `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (older versions).

        Args:
            settings: the parsed config.json.
            default_theta: base of the wavelengths if the file has none.

        Raises:
            UserError: a setting is mistyped, unknown, missing or contradicts another one.
        """
        theta = settings.get("rope_theta")
        new, old = settings.get("rope_parameters"), settings.get("rope_scaling")
        for key, table in (("rope_parameters", new), ("rope_scaling", old)):
            if table is not None and not isinstance(table, dict):
                raise UserError(f"{key} is {reprlib.repr(table)}: give an object, or null")
            for name, value in (table or {}).items():
                if value is not None:
                    values.check(f"{name} in {key}", value, _VALUES.get(name, values.POSITIVE))
        merged = dict(new or old or {})
        if theta is None and merged.get("rope_theta") is None and "rope_theta" in {**settings, **merged}:
            raise UserError("rope_theta is null: give a number such as 10000.0, or remove it")
        if theta is not None:
            values.check("rope_theta", theta, values.POSITIVE)
            if merged.get("rope_theta") is None:
                merged["rope_theta"] = theta
            if merged["rope_theta"] != theta:
                raise UserError(
                    f"rope_theta is {theta} but rope_parameters has {merged['rope_theta']}: keep one of them"
                )
        rope = cls.from_dict({"rope_theta": default_theta, **merged})
        if new and old and cls.from_dict({**old, "rope_theta": rope.rope_theta}) != rope:
            raise UserError(f"rope_parameters {new} contradicts rope_scaling {old}: keep one of them")
        return rope

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings that are not None, under their names in config.json."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def frequencies(rope: Rope, head_dim: int, max_positions: int, length: int) -> tuple[np.ndarray, float]:
    """Computes the angular frequencies of the rotated pairs, and the factor on cosine and sine.

    Args:
        rope: settings.
        head_dim: features per head, H; even.
        max_positions: `max_position_embeddings` of the model.
        length: positions in use; only "dynamic" depends on it, and only beyond `max_positions`.

    Returns:
        float32 [H / 2] in radians per position, and the factor, which is 1 except for "yarn".
    """
    theta = rope.rope_theta
    if rope.rope_type == "dynamic":
        theta *= _dynamic_stretch(rope, head_dim, max_positions, length)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequency = (np.float32(1) / np.power(np.float32(theta), exponents)).astype(np.float32)
    if rope.rope_type == "linear":
        return frequency / np.float32(rope.factor), 1.0
    original = rope.original_max_position_embeddings or max_positions
    if rope.rope_type == "llama3":
        return _llama3(rope, frequency, original), 1.0
    if rope.rope_type == "yarn":
        return _yarn(rope, frequency, head_dim, original), _yarn_attention_factor(rope)
    return frequency, 1.0


def _dynamic_stretch(rope: Rope, head_dim: int, max_positions: int, length: int) -> float:
    """Returns the factor on theta of dynamic NTK scaling, which grows with lengths beyond the trained positions."""
    assert rope.factor is not None
    ratio = rope.factor * max(length, max_positions) / max_positions - (rope.factor - 1)
    return ratio ** (head_dim / (head_dim - 2))


def _llama3(rope: Rope, frequency: np.ndarray, original: int) -> np.ndarray:
    """Scales frequencies as Llama 3.1: long wavelengths by the factor, short ones not, others interpolated."""
    assert rope.factor is not None
    assert rope.low_freq_factor is not None
    assert rope.high_freq_factor is not None
    wavelength = 2 * np.float32(math.pi) / frequency
    smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0, 1).astype(np.float32)
    return ((1 - smooth) * frequency / np.float32(rope.factor) + smooth * frequency).astype(np.float32)


def _yarn(rope: Rope, frequency: np.ndarray, head_dim: int, original: int) -> np.ndarray:
    """Scales frequencies as YaRN (Peng et al. 2023, section 3.2): a ramp over dimensions, from unscaled to scaled."""

    def dimension(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = dimension(rope.beta_fast or 32), dimension(rope.beta_slow or 1)
    if rope.truncate is None or rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    divided = np.clip((np.arange(head_dim // 2, dtype=np.float32) - low) / width, 0, 1)
    return (frequency / np.float32(rope.factor) * divided + frequency * (1 - divided)).astype(np.float32)


def _yarn_attention_factor(rope: Rope) -> float:
    assert rope.factor is not None
    if rope.attention_factor is not None:
        return rope.attention_factor

    growth = math.log(max(rope.factor, 1.0))

    def temperature(weight: float) -> float:
        return 0.1 * weight * growth + 1.0

    if rope.mscale and rope.mscale_all_dim:
        return temperature(rope.mscale) / temperature(rope.mscale_all_dim)
    return temperature(1.0)


def rotate(x_BTNH: jax.Array, positions_BT: jax.Array, frequency: np.ndarray, factor: float) -> jax.Array:
    """Rotates feature pairs (i, i + H/2) of each head by position times frequency (Su et al. 2021, equation 34).

    Angles are float32 whatever the dtype of the activations, since bfloat16 represents positions with 8 bits only.

    Args:
        x_BTNH: queries or keys.
        positions_BT: positions of the tokens.
        frequency: [H / 2] in radians per position.
        factor: on cosine and sine.

    Returns:
        [B, T, N, H] in the dtype of `x_BTNH`.
    """
    dtype = wide(x_BTNH.dtype)
    angles = positions_BT.astype(jnp.float32)[..., None] * frequency
    cosine = (jnp.cos(angles) * factor).astype(dtype)[..., None, :]
    sine = (jnp.sin(angles) * factor).astype(dtype)[..., None, :]
    first, second = jnp.split(x_BTNH.astype(dtype), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x_BTNH.dtype)
