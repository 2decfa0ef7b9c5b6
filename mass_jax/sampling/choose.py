"""Drawing of a token from logits: temperature, truncation, and one uniform number per row.

Truncation finds a threshold on probabilities by bisection, which is exact and needs no sort of the vocabulary. All
functions work on one row; use `jax.vmap` for more.

Shape suffixes: V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

_GREEDY = 0.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sampling settings; hashable, so they can be a static argument.

    Truncations apply to the tempered probabilities, in the order of the attributes. Tokens tied with the least likely
    kept token are kept too.

    Attributes:
        temperature: divisor of the logits; 0 is greedy.
        top_k: keep the k most likely tokens; 0 is off.
        top_p: keep the smallest set of most likely tokens with at least this total probability; 1 is off.
        min_p: keep tokens at least this fraction as likely as the most likely one; 0 is off.

    Raises:
        ValueError: a setting is out of range.

    >>> Settings(temperature=0.7, top_p=0.95)
    Settings(temperature=0.7, top_k=0, top_p=0.95, min_p=0.0)
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        for name, good, asked in (
            ("temperature", self.temperature >= 0, "at least 0 (0 is greedy)"),
            ("top_k", self.top_k >= 0, "at least 0 (0 is off)"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1] (1 is off)"),
            ("min_p", 0 <= self.min_p < 1, "in [0, 1) (0 is off)"),
        ):
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {asked}")


def choose(key: jax.Array, logits_V: jax.Array, settings: Settings) -> tuple[jax.Array, jax.Array]:
    """Draws a token.

    Args:
        key: random key of this row and step.
        logits_V: the model's logits.
        settings: sampling settings.

    Returns:
        The token (int32), and its log-probability under softmax(logits / temperature) before truncation, as a policy
        gradient's ratio requires. Greedy decoding returns the log-probability at temperature 1.

    >>> token, _ = choose(jax.random.key(0), jnp.array([0.0, 3.0, 1.0]), Settings(temperature=0.0))
    >>> int(token)
    1
    """
    if settings.temperature == _GREEDY:
        token = jnp.argmax(logits_V).astype(jnp.int32)
        return token, logits_V[token] - jax.nn.logsumexp(logits_V)
    tempered_V = logits_V / settings.temperature
    weights_V = jnp.exp(tempered_V - jnp.max(tempered_V))
    token = draw(key, truncate(weights_V, settings))
    return token, tempered_V[token] - jnp.max(tempered_V) - jnp.log(jnp.sum(weights_V))


def truncate(weights_V: jax.Array, settings: Settings) -> jax.Array:
    """Sets the weights of excluded tokens to zero.

    Args:
        weights_V: unnormalized probabilities, at most 1.
        settings: sampling settings.

    Returns:
        The weights, [V].
    """
    if 0 < settings.top_k < weights_V.shape[-1]:
        enough = jnp.asarray(settings.top_k, weights_V.dtype)
        weights_V = _keep_likeliest(weights_V, jnp.ones_like(weights_V), enough)
    if settings.top_p < 1:
        weights_V = _keep_likeliest(weights_V, weights_V, settings.top_p * jnp.sum(weights_V))
    if settings.min_p > 0:
        weights_V = jnp.where(weights_V >= settings.min_p * jnp.max(weights_V), weights_V, 0)
    return weights_V


def _keep_likeliest(weights_V: jax.Array, mass_V: jax.Array, enough: jax.Array) -> jax.Array:
    """Keeps the weights at or above the highest threshold with at least `enough` mass at or above it.

    Bisects on bit patterns, which order like non-negative floats do; this is exact, and takes one pass per bit.
    """
    integer = jnp.int64 if weights_V.dtype == jnp.float64 else jnp.int32
    bits_V = jax.lax.bitcast_convert_type(weights_V, integer)

    def narrow(_, bounds):
        low, high = bounds  # there is enough mass at or above `low`, and too little at or above `high`
        middle = low + (high - low) // 2
        suffices = jnp.sum(jnp.where(bits_V >= middle, mass_V, 0)) >= enough
        return jnp.where(suffices, middle, low), jnp.where(suffices, high, middle)

    bounds = (jnp.zeros((), integer), jnp.max(bits_V) + 1)
    low, _ = jax.lax.fori_loop(0, 8 * weights_V.dtype.itemsize - 1, narrow, bounds)
    return jnp.where(bits_V >= low, weights_V, 0)


def draw(key: jax.Array, weights_V: jax.Array, block: int = 256) -> jax.Array:
    """Draws an index with probability proportional to its weight, by inverting the cumulative sum.

    This takes one uniform number per row, where the Gumbel trick takes one per token. The sum is inverted in two
    levels: blocks, then tokens within a block.

    Args:
        key: random key.
        weights_V: non-negative weights, not all zero.
        block: tokens per block.

    Returns:
        The index, int32.
    """
    count = -(-weights_V.shape[0] // block)
    table = jnp.pad(weights_V, (0, count * block - weights_V.shape[0])).reshape(count, block)
    sums = jnp.cumsum(jnp.sum(table, axis=1))
    target = jax.random.uniform(key, (), weights_V.dtype) * sums[-1]
    # Rounding must not move the search past the last block with a positive weight.
    row = jnp.minimum(jnp.sum(sums <= target), _last_positive(jnp.sum(table, axis=1)))
    before = jnp.where(row > 0, sums[row - 1], 0)
    column = jnp.sum(jnp.cumsum(table[row]) <= target - before)
    column = jnp.minimum(column, _last_positive(table[row]))
    return (row * block + column).astype(jnp.int32)


def _last_positive(values: jax.Array) -> jax.Array:
    """Returns the index of the last positive value."""
    return values.shape[0] - 1 - jnp.argmax(values[::-1] > 0)
