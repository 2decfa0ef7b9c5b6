"""Rotary position embedding (RoPE) with the five scalings that Llama checkpoints use.

Shapes: B rows, T tokens, N heads, H features of a head.
Frequencies are constants of the configuration, so they are NumPy float32, as in the reference implementation.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama.precision import wide

_SCALED = ("factor",)
# rope_type -> (required keys, optional keys), beside rope_type and rope_theta.
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


@dataclasses.dataclass(frozen=True)
class Rope:
    """RoPE settings under their Hugging Face names; only those of `rope_type` are set, the others are None."""

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
        """Reads the `rope_parameters` of a config.json; refuses an unknown type, an unknown key, a missing key."""
        settings = {key: value for key, value in settings.items() if value is not None}
        kind = settings.pop("type", "default")
        kind = settings.setdefault("rope_type", kind)
        if kind not in _KEYS:
            raise ValueError(f"rope_type {kind!r} is not supported: use one of {', '.join(_KEYS)}")
        if settings.pop("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError("partial_rotary_factor other than 1.0 is not a Llama setting: remove it")
        required, optional = _KEYS[kind]
        missing = [key for key in required if key not in settings]
        unknown = sorted(set(settings) - {"rope_type", "rope_theta", *required, *optional})
        if missing:
            raise ValueError(f"rope_type {kind!r} needs {missing[0]!r}: add it to rope_parameters")
        if unknown:
            raise ValueError(f"rope_type {kind!r} does not know {unknown[0]!r}: remove it from rope_parameters")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings that are set, in config.json's names."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def frequencies(rope: Rope, head_dim: int, max_positions: int, length: int) -> tuple[np.ndarray, float]:
    """Angular frequencies of the rotated pairs, and the factor on cosine and sine.

    Args:
      rope: settings.
      head_dim: features of a head, H; even.
      max_positions: `max_position_embeddings` of the model.
      length: positions the caller may use; only `dynamic` looks at it, and only beyond `max_positions`.

    Returns:
      float32 [H / 2] in radians per position, and the factor (1 but for yarn).
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
    """Neural-tangent-kernel stretch of theta: grows with the length once it passes the trained positions."""
    assert rope.factor is not None
    ratio = rope.factor * max(length, max_positions) / max_positions - (rope.factor - 1)
    return ratio ** (head_dim / (head_dim - 2))


def _llama3(rope: Rope, frequency: np.ndarray, original: int) -> np.ndarray:
    """Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated."""
    assert rope.factor is not None
    assert rope.low_freq_factor is not None
    assert rope.high_freq_factor is not None
    wavelength = 2 * np.float32(math.pi) / frequency
    smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0, 1).astype(np.float32)
    return ((1 - smooth) * frequency / np.float32(rope.factor) + smooth * frequency).astype(np.float32)


def _yarn(rope: Rope, frequency: np.ndarray, head_dim: int, original: int) -> np.ndarray:
    """YaRN (Peng et al. 2023, section 3.2): a ramp over dimensions from kept to divided frequencies."""

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
    """Rotates feature pairs (i, i + H/2) of each head by position times frequency.

    Angles are float32 whatever the activations are, for a bfloat16 position has 8 bits (Su et al. 2021, equation 34).
    """
    dtype = wide(x_BTNH.dtype)
    angles = positions_BT.astype(jnp.float32)[..., None] * frequency
    cosine = (jnp.cos(angles) * factor).astype(dtype)[..., None, :]
    sine = (jnp.sin(angles) * factor).astype(dtype)[..., None, :]
    first, second = jnp.split(x_BTNH.astype(dtype), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x_BTNH.dtype)
