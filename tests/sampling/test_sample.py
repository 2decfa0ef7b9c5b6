"""Sampling loop: agreement with the full forward pass, and independence of samples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import sampling
from mass_jax.llama import Llama, lora, losses
from mass_jax.sampling import loop
from tests.small_models import LLAMA, llama_params

_CONFIG = dataclasses.replace(LLAMA, vocab_size=50, pad_token_id=49)
_MODEL = Llama(_CONFIG)
_APPLY = jax.jit(_MODEL.apply)
_SAMPLES, _NEW = 3, 9
_STOP = (5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def params():
    return llama_params(_CONFIG)


@pytest.fixture(scope="module")
def batch():
    prompts_NP = jnp.asarray(np.random.default_rng(1).integers(0, 49, (4, 7)), jnp.int32)
    return prompts_NP, jnp.array([3, 7, 1, 5]), jax.random.split(jax.random.key(2), 4)


@pytest.fixture(scope="module")
def adapters():
    """Returns one adapter per prompt, with nonzero B."""
    shapes, rng = jax.eval_shape(lambda: lora.init(jax.random.key(3), _CONFIG, 2, scale=0.5)), np.random.default_rng(4)
    return shapes.many(
        jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal((4, *x.shape)), x.dtype), shapes.leaves)
    )


@functools.cache
def _sampler(settings=sampling.Settings(), stop_tokens=_STOP):  # noqa: B008 (frozen)
    bound = {"num_samples": _SAMPLES, "max_new_tokens": _NEW, "settings": settings, "stop_tokens": stop_tokens}
    return jax.jit(functools.partial(sampling.sample, _MODEL, **bound))


def _check_logprobs(samples, params, batch, adapter_of, temperature=1.0):
    """Compares log-probabilities with the full forward pass over prompt and continuation."""
    samples = jax.tree.map(np.asarray, samples)
    for n in range(4):
        length = int(batch[1][n])
        for m in range(_SAMPLES):
            count = int(samples.lengths_NM[n, m])
            text_T = np.concatenate([np.asarray(batch[0])[n, :length], samples.tokens_NMT[n, m]])
            text_T = np.pad(text_T, (0, 7 + _NEW - text_T.shape[0]))
            logits_TV = np.asarray(_APPLY(lora.variables(params, adapter_of(n)), text_T[None])[0]) / temperature
            logits_TV = logits_TV[length - 1 : length - 1 + count]
            logp_TV = logits_TV - np.log(np.sum(np.exp(logits_TV), axis=-1, keepdims=True))
            wanted = logp_TV[np.arange(count), samples.tokens_NMT[n, m, :count]]
            np.testing.assert_allclose(samples.logprobs_NMT[n, m, :count], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "shared", "per prompt"])
def test_log_probabilities_match_full_forward_pass(params, batch, adapters, kind):
    each = lora.split(adapters)
    given, of = {
        "none": (None, lambda n: None),
        "shared": (each[2], lambda n: each[2]),
        "per prompt": (adapters, lambda n: each[n]),
    }[kind]
    samples = _sampler()(params, *batch, adapters=given)
    _check_logprobs(samples, params, batch, of)


def test_log_probabilities_are_tempered(params, batch):
    samples = _sampler(sampling.Settings(temperature=0.6, top_p=0.9))(params, *batch)
    _check_logprobs(samples, params, batch, lambda n: None, temperature=0.6)


def test_sample_ends_with_stop_token(params, batch):
    samples = jax.tree.map(np.asarray, _sampler()(params, *batch))
    assert 0 < samples.finished_NM.sum() < samples.finished_NM.size  # both ways to end occur
    for n, m in np.ndindex(samples.lengths_NM.shape):
        count, tokens_T = samples.lengths_NM[n, m], samples.tokens_NMT[n, m]
        assert not np.isin(tokens_T[: count - 1], _STOP).any()
        assert samples.finished_NM[n, m] == (tokens_T[count - 1] in _STOP)
        assert count == _NEW or samples.finished_NM[n, m]
        assert (tokens_T[count:] == _CONFIG.pad_token_id).all()
        assert (samples.logprobs_NMT[n, m, count:] == 0).all()


def test_sample_is_independent_of_batch(params, batch, adapters):
    prompts_NP, lengths_N, keys_N = batch
    together = _sampler()(params, *batch, adapters=adapters)
    for n in (0, 2):
        one = slice(n, n + 1)
        # Alone, and padded to another length.
        prompt = jnp.pad(prompts_NP[one], ((0, 0), (0, 4)), constant_values=13)
        alone = _sampler()(params, prompt, lengths_N[one], keys_N[one], adapters=lora.split(adapters)[n])
        np.testing.assert_array_equal(alone.tokens_NMT[0], together.tokens_NMT[n])
        np.testing.assert_allclose(alone.logprobs_NMT[0], together.logprobs_NMT[n], atol=1e-5)


def test_adapter_mapped_as_a_whole_is_refused(params, batch, adapters):
    with pytest.raises(ValueError, match=r"batched adapter have rank \[3\] instead of 4"):
        jax.vmap(lambda adapter: _sampler()(params, *batch, adapters=adapter))(adapters)


def test_samples_differ_and_repeat_with_key(params, batch):
    samples, again = _sampler()(params, *batch), _sampler()(params, *batch)
    np.testing.assert_array_equal(samples.tokens_NMT, again.tokens_NMT)
    assert len({tuple(row) for row in np.asarray(samples.tokens_NMT[1]).tolist()}) == _SAMPLES


def test_greedy_matches_argmax(params, batch):
    samples = _sampler(sampling.Settings(temperature=0.0), ())(params, *batch)
    prompts_NP, lengths_N, _ = batch
    text = prompts_NP[1, : int(lengths_N[1])].tolist()
    for _ in range(_NEW):
        padded = np.array([text + [0] * (7 + _NEW - len(text))], np.int32)
        text.append(int(np.argmax(_APPLY({"params": params}, padded)[0, len(text) - 1])))
    for m in range(_SAMPLES):
        assert samples.tokens_NMT[1, m].tolist() == text[-_NEW:]


def test_same_shapes_do_not_recompile(params, batch):
    sampler = jax.jit(functools.partial(sampling.sample, _MODEL, num_samples=2, max_new_tokens=3))
    prompts_NP, lengths_N, keys_N = batch
    sampler(params, *batch)
    sampler(params, prompts_NP + 1, jnp.maximum(lengths_N - 1, 1), keys_N[::-1])
    assert sampler._cache_size() == 1


def test_unstacked_parameters_match_stacked(params, batch):
    stacked, unstacked = _sampler()(params, *batch), _sampler()(sampling.unstack(params), *batch)
    np.testing.assert_array_equal(stacked.tokens_NMT, unstacked.tokens_NMT)


def test_several_steps_between_checks_draw_the_same_samples(params, batch, monkeypatch):
    """As on a GPU, where prefill scans stacked layers, and calls end between two checks and then continue."""
    wanted = _sampler()(params, *batch)
    monkeypatch.setattr(loop, "gpus", lambda: 1)
    request = loop.Request(_SAMPLES, _NEW, sampling.Settings(), _STOP, 49)
    layers = sampling.unstack(params)

    @jax.jit
    def advance(state, until):
        return loop.advance(_MODEL, layers, state, request, None, until)

    state = jax.jit(functools.partial(loop.start, _MODEL, request=request, adapters=None))(params, *batch)
    for until in (3, 4, _NEW):
        state = advance(state, until)
        assert state.drawn == until
    for found, expected in zip(state.samples, wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.all(wanted.finished_NM)


def test_sample_runs_in_float64(x64, params, batch):
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    prompts_NP, lengths_N, keys_N = batch
    run = functools.partial(
        sampling.sample, _MODEL, num_samples=2, max_new_tokens=3, settings=sampling.Settings(top_k=4)
    )
    samples = jax.jit(run)(wide, prompts_NP, lengths_N, keys_N)
    assert samples.logprobs_NMT.dtype == jnp.float64
    text_BT = np.concatenate([prompts_NP[1], samples.tokens_NMT[1, 0]])[None]
    nll_BT = jax.jit(functools.partial(losses.token_nll, _MODEL))({"params": wide}, text_BT)
    np.testing.assert_allclose(samples.logprobs_NMT[1, 0], -nll_BT[0, 6:9], atol=1e-12)
