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
from tests.sampling.remote.stub import Stub, serving
from tests.small_models import components

# Training and evaluation draw completions of one shape.
SMALL = {"generator": "lora", "lora_targets": ("q_proj",), "steps": 2, "num_test_examples": 4, "max_answer_tokens": 12}


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


class Compared:
    """The sampler of a run, which checks each of its completions against the native one."""

    is_native = False

    def __init__(self, sampler):
        self.sampler, self.greedy, self.adapted = sampler, [], []

    def __call__(self, solver, weights, inner, feed, draw):
        found = self.sampler(solver, weights, inner, feed, draw)
        wanted = samplers.Native()(solver, weights, inner, feed, draw)
        for name in ("tokens_NMT", "lengths_NM", "finished_NM"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        np.testing.assert_allclose(found.logprobs_NMT, wanted.logprobs_NMT, atol=1e-4)
        self.greedy.append(draw.temperature == 0)
        self.adapted.append(inner is not None)
        return found


def compared(**changes):
    """Returns components that sample with `Engine`, compared with the native sampler."""
    made = components(**SMALL | changes, sampler="mass_jax.sampling:Engine")
    return dataclasses.replace(
        made, rollouts=dataclasses.replace(made.rollouts, sampler=Compared(made.rollouts.sampler))
    )


def metrics_in(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Components that sample with `Engine`, weights after two steps with it, and the metrics of the steps."""
    made, workdir = compared(), tmp_path_factory.mktemp("trained")
    with jax.numpy_dtype_promotion("standard"):
        weights = study.train_run(made, "solver_grpo", made.problems(0), 0, workdir, runtime.Stop()).weights
    return made, weights, metrics_in(workdir)


def test_engine_trains_and_evaluates_with_native_tokens(trained):
    made, weights, metrics = trained
    assert len(metrics) == 2
    for row in metrics:
        assert row["attempts_sampler_kl"] == pytest.approx(0, abs=1e-6)
        assert row["attempts_sampler_ratio"] == pytest.approx(1, abs=1e-4)
        assert row["attempts_sampler_truncated"] == 0
    problems = made.problems(0)
    job = evaluate.Job(made.config, made.rollouts, weights, "tt_ss", problems, 0)
    column, batch = next(iter(problems.columns.items()))
    records = evaluate.answer(job, column, batch, jax.random.key(1))()
    assert [record["id"] for record in records] == [problem.id for problem in batch]
    sampler = made.rollouts.sampler  # two steps, the examples, and the answers after adaptation
    assert (sampler.greedy, sampler.adapted) == ([False] * 3 + [True], [False] * 3 + [True])


def test_server_trains_with_log_probabilities_of_the_model(trained, tmp_path):
    loaded = trained[0].model
    with serving(Stub(trained[0].rollouts.solver.model, loaded.params)) as url:
        made = components(**SMALL, sampler="vllm", sampler_url=url, sampler_tolerance=1e-3)
        with jax.numpy_dtype_promotion("standard"):
            study.train_run(made, "solver_grpo", made.problems(0), 0, tmp_path, runtime.Stop())
        rows = metrics_in(tmp_path)
        assert [row.keys() for row in rows] == [row.keys() for row in trained[2]]
        for row in rows:
            assert np.isfinite([value for value in row.values() if isinstance(value, float)]).all()
            assert row["attempts_sampler_ratio"] == pytest.approx(1, abs=1e-4)
            assert row["attempts_sampler_kl"] == pytest.approx(0, abs=1e-5)
        tasks, keys_N = made.problems(0).train[:2], jax.random.split(jax.random.key(0), 2)
        inner = made.rollouts.loop.init_adapters(keys_N)
        inner = inner.many(jax.tree.map(lambda leaf: leaf + np.float32(0.05), inner.leaves))
        attempts = made.rollouts.attempt(trained[1], inner, tasks, keys_N, 2, 1.0)
    np.testing.assert_allclose(attempts.rollout.log_ratio_BT, 0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["full", "lora"])
def test_engine_meta_trains_with_native_tokens(generator, tmp_path):
    made = compared(generator=generator)
    with jax.numpy_dtype_promotion("standard"):
        train_mass(made, made.problems(0).train, seed=0, outer="verifier", workdir=tmp_path, stop=runtime.Stop())
    assert made.rollouts.sampler.adapted == [False, True] * 2
    for row in metrics_in(tmp_path):
        assert row["examples_sampler_ratio"] == pytest.approx(1, abs=1e-4)
        assert row["attempts_sampler_ratio"] == pytest.approx(1, abs=1e-4)


def test_rollout_has_log_probabilities_of_the_model(trained):
    made, weights = components(**SMALL), trained[1]
    engine = sampling.Engine(made.rollouts.solver.model, made.model.tokenizer)
    shifted = made.with_sampler(lambda model, tokenizer: Shifted(engine, 0.25))
    tasks, keys_N = made.problems(0).train[:2], jax.random.split(jax.random.key(0), 2)
    texts_NM, native = made.rollouts.write_texts(weights, tasks, keys_N, 4)
    other_NM, external = shifted.rollouts.write_texts(weights, tasks, keys_N, 4)
    assert other_NM == texts_NM
    assert native.log_ratio_BT is None
    np.testing.assert_allclose(external.logprobs_BT, native.logprobs_BT, atol=1e-5)
    np.testing.assert_allclose(external.log_ratio_BT, 0.25 * native.text.target_BT, atol=1e-5)

    rewards_NM = np.array([[1.0, -1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 1.0]], np.float32)
    surrogate = Surrogate(made.rollouts.solver, 0.2, 0.01, "token", sampler_ratio_cap=1.1)
    of_logprobs = jax.jit(surrogate.of_logprobs)
    moved_BT = native.logprobs_BT + np.array([0.1, -0.1, 0.2, 0.0], np.float32)[:, None]
    plain, _ = of_logprobs(moved_BT, native, rewards_NM)
    weighted, _ = of_logprobs(moved_BT, external._replace(logprobs_BT=native.logprobs_BT), rewards_NM)
    assert abs(plain) > 0.01
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
        ("engine", "--sampler=engine does not name an object"),
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
