"""Rollouts sample natively or through an external sampler, with the same tokens and the model's log-probabilities."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mass_jax import runtime, sampling
from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate, study
from mass_jax.method.models import Weights
from mass_jax.method.objective import Surrogate
from mass_jax.runtime import distributed
from mass_jax.training import samplers
from mass_jax.training.train import train_mass
from tests.small_models import components

SMALL = {"generator": "lora", "lora_targets": ("q_proj",), "steps": 2}
ENGINE = "mass_jax.sampling:Engine"


@dataclasses.dataclass
class Shifted:
    """An engine whose log-probabilities are too low, like those of another numerical precision."""

    engine: sampling.Engine
    shift: float

    def __call__(self, *args, **kwargs):
        rows = self.engine(*args, **kwargs)
        return [[one._replace(logprobs_T=one.logprobs_T - self.shift) for one in row] for row in rows]


class Stopping:
    """A sampler that stops at once, and keeps what it was given."""

    def __init__(self, model, tokenizer):
        self.calls, self.updates = [], []

    def update(self, params, version):
        self.updates.append((params, version))

    def __call__(self, params, prompts, keys_N, *, num_samples, stop_tokens, **options):
        self.calls.append(options | {"prompts": prompts})
        token, logprob = np.array(stop_tokens[:1], np.int32), np.zeros(1, np.float32)
        return [[sampling.Continuation(token, logprob, "", "stop")] * num_samples for _ in prompts]


def recorded(made):
    """Returns components whose completions are kept in a list, and the list."""
    sampler, kept = made.rollouts.sampler, []

    class Recording:
        is_native = sampler.is_native

        def __call__(self, *args):
            kept.append(sampler(*args))
            return kept[-1]

    return dataclasses.replace(made, rollouts=dataclasses.replace(made.rollouts, sampler=Recording())), kept


def run_of(name, workdir):
    """Trains the solver for two steps, adapts and answers; returns completions, metrics and records."""
    made, kept = recorded(components(**SMALL, sampler=name))
    problems = made.problems(0)
    with jax.numpy_dtype_promotion("standard"):
        trained = study.train_run(made, "solver_grpo", problems, 0, workdir, runtime.Stop())
        job = evaluate.Job(made.config, made.rollouts, trained.weights, "tt_ss", problems, 0)
        column, batch = next(iter(problems.columns.items()))
        records = evaluate.answer(job, column, batch, jax.random.key(1))()
    return kept, [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()], records


def test_engine_trains_and_evaluates_like_native_sampler(tmp_path):
    native, native_metrics, native_records = run_of("native", tmp_path / "native")
    external, external_metrics, external_records = run_of(ENGINE, tmp_path / "external")
    assert len(native) == len(external) == 4  # two steps, examples, answers
    for one, other in zip(native, external, strict=True):
        for name in ("lengths_NM", "finished_NM", "tokens_NMT"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_allclose(one.logprobs_NMT, other.logprobs_NMT, atol=1e-4)
    for one, other in zip(native_metrics, external_metrics, strict=True):
        assert other.keys() - one.keys() == {f"attempts_sampler_{x}" for x in ("kl", "ratio", "truncated")}
        assert other["attempts_sampler_kl"] == pytest.approx(0, abs=1e-6)
        assert other["attempts_sampler_ratio"] == pytest.approx(1, abs=1e-4)
        assert other["attempts_sampler_truncated"] == 0
        assert {name: other[name] for name in one if name != "step_time"} == pytest.approx(
            {name: value for name, value in one.items() if name != "step_time"}, rel=1e-3, abs=1e-5
        )
    for one, other in zip(native_records, external_records, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["full", "lora"])
def test_engine_meta_trains_like_native_sampler(generator, tmp_path):
    seen = []
    for name in ("native", ENGINE):
        made, kept = recorded(components(**SMALL | {"generator": generator}, sampler=name))
        with jax.numpy_dtype_promotion("standard"):
            train_mass(
                made,
                made.problems(0).train,
                seed=0,
                outer="verifier",
                workdir=tmp_path / name.partition(":")[0],
                stop=runtime.Stop(),
            )
        seen.append([drawn.tokens_NMT.tolist() for drawn in kept])
    assert seen[0] == seen[1]


def test_rollout_has_log_probabilities_of_the_model():
    made = components(**SMALL)
    engine = sampling.Engine(made.rollouts.solver.model, made.model.tokenizer)
    shifted = made.with_sampler(lambda model, tokenizer: Shifted(engine, 0.25))
    tasks, keys_N = made.problems(0).train[:2], jax.random.split(jax.random.key(0), 2)
    weights = made.pretrained()
    texts_NM, native = made.rollouts.write_texts(weights, tasks, keys_N, 2)
    other_NM, external = shifted.rollouts.write_texts(weights, tasks, keys_N, 2)
    assert other_NM == texts_NM
    assert native.log_ratio_BT is None
    np.testing.assert_allclose(external.logprobs_BT, native.logprobs_BT, atol=1e-5)
    np.testing.assert_allclose(external.log_ratio_BT, 0.25 * native.text.target_BT, atol=1e-5)

    rewards_NM = np.array([[1.0, -1.0], [0.5, 0.0]], np.float32)
    surrogate = Surrogate(made.rollouts.solver, 0.2, 0.01, "token", sampler_ratio_cap=1.1)
    of_logprobs = jax.jit(surrogate.of_logprobs)
    plain, _ = of_logprobs(native.logprobs_BT + 0.1, native, rewards_NM)
    weighted, _ = of_logprobs(native.logprobs_BT + 0.1, external._replace(logprobs_BT=native.logprobs_BT), rewards_NM)
    assert float(weighted) == pytest.approx(1.1 * float(plain), rel=1e-5)


def test_sampler_gets_prompts_adapters_and_new_weights():
    made = components(**SMALL).with_sampler(Stopping)
    sampler, rollouts = made.rollouts.sampler.sampler, made.rollouts
    tasks, keys_N = made.problems(0).train[:2], jax.random.split(jax.random.key(0), 2)
    weights = made.pretrained()
    inner = rollouts.loop.init_adapters(keys_N)
    for given in (None, inner):
        rollouts.attempt(weights, given, tasks, keys_N, 1, 0.0)
    tokens_NT, lengths_N = rollouts.dialogue.solver_prompts(tasks)
    assert sampler.calls[0]["prompts"] == [list(t[:n]) for t, n in zip(tokens_NT, lengths_N, strict=True)]
    shared, batched = (call["adapters"] for call in sampler.calls)
    assert (shared.batched, batched.batched) == (False, True)
    ranks = [next(iter(jax.tree.leaves(adapter.leaves))).shape[-1] for adapter in (shared, batched)]
    assert ranks == [made.config.generator_lora_rank, made.config.generator_lora_rank + made.config.lora_rank]
    assert [version for _, version in sampler.updates] == [1]
    assert sampler.updates[0][0] is weights.base

    copied = Weights(jax.tree.map(np.copy, weights.base), weights.policy)
    for given in (copied, copied, weights):
        rollouts.attempt(given, None, tasks, keys_N, 1, 0.0)
    assert [version for _, version in sampler.updates] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vllm", "--sampler=vllm does not name an object"),
        ("mass_jax.sampling:Engin", "has no 'Engin'; did you mean 'Engine'"),
        ("mass_jax.sampling:__doc__", "str cannot be called; name a class or function of"),
        ("mass_jax.sampling:Continuation", "missing a required argument: 'text'; name a class or function of"),
        ("mass_jax.errors:UserError", "is not a Sampler: UserError cannot be called; see mass_jax.sampling.Sampler"),
    ],
)
def test_make_refuses_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        samplers.make(name, None, None)
    assert "\n" not in str(caught.value)


def test_external_sampler_needs_one_process(monkeypatch):
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    assert samplers.make("native", None, None).is_native
    with pytest.raises(UserError, match="samples in one process, but this run has 2; use --sampler=native"):
        samplers.make(Stopping, None, None)
