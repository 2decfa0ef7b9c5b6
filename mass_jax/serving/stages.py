"""Stages of answering a batch, each a function of its inputs: answer, write, parse, update.

Every stage takes a batch padded to a fixed size. The result for a question depends only on its own keys and texts.
`candidates` measures the written examples. Shape suffixes: N questions, M examples of a question, K inner steps.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.config import Config
from mass_jax.llama import lora
from mass_jax.method import adapt, generate
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import TooLong
from mass_jax.serving import adaptation
from mass_jax.serving.guards import bounds
from mass_jax.serving.guards.gates import Gate
from mass_jax.tasks.base import Example, Problem, Rejected
from mass_jax.training.rollout import Rollouts
from mass_jax.types import Adapter

MOST_CHARS = 100_000  # characters of a question or an example
KEY_NAMES = ("write", "adapter", "answer", "check")
REAL_EXAMPLES = 64  # training problems used as real examples by default


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that answers and adapts, with its gates.

    Attributes:
        config: the settings; the inner loop is within the policy's limits.
        rollouts: samples and adapts, by the same settings.
        weights: the weights under the adapters; never changed.
        gates: checks of the examples.
        real: real examples, for calibration and for mixing in.
        num_real: number of real examples among those of a question.
    """

    config: Config
    rollouts: Rollouts
    weights: Weights
    gates: Sequence[Gate]
    real: Sequence[Example]
    num_real: int

    @property
    def solver(self) -> Solver:
        """The language model."""
        return self.rollouts.solver

    @property
    def dialogue(self) -> generate.Dialogue:
        """Encodes prompts, decodes and parses samples."""
        return self.rollouts.dialogue

    @property
    def num_written(self) -> int:
        """Number of examples that the model writes for a question."""
        return self.config.num_test_examples - self.num_real

    def needs(self, kind: type) -> Any:
        """Returns the gate of a class, or None."""
        return next((gate for gate in self.gates if isinstance(gate, kind)), None)


class Update(NamedTuple):
    """Updates of a batch with the verdict of the bounds; a rejected update does not affect its answer.

    Attributes:
        adapters: one per question, scaled down where a bound requires it.
        losses_NK: inner losses before each step and after the last.
        norms: relative norms before scaling, by projection and in total, each [N].
        judged_N: verdicts of the bounds.
    """

    adapters: Adapter
    losses_NK: np.ndarray
    norms: Mapping[str, np.ndarray]
    judged_N: list[bounds.Judged]


def keys_of(seed: int, names: Sequence[str]) -> np.ndarray:
    """Returns four random keys per question, [N, 4, 2] uint32: a hash of seed and name, independent of the batch.

    >>> keys_of(0, ["a", "b"])[1].tolist() == keys_of(0, ["b"])[0].tolist()
    True
    """
    digests = [hashlib.sha256(f"mass solve {seed} {name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    return np.frombuffer(b"".join(digests), ">u4").astype(np.uint32).reshape(len(names), len(KEY_NAMES), 2)


def keys_named(keys_N42: np.ndarray, name: str) -> jax.Array:
    """Returns the keys [N] for one purpose of `KEY_NAMES`."""
    return jax.random.wrap_key_data(jnp.asarray(keys_N42[:, KEY_NAMES.index(name)]), impl="threefry2x32")


def unfit(dialogue: generate.Dialogue, problem: str) -> str:
    """Returns why a question cannot be put to the model; "" if it can."""
    try:
        problem.encode()
        dialogue.solver_prompts([Problem("", problem, "", "")])
        dialogue.generator_prompts([Problem("", problem, "", "")])
    except UnicodeEncodeError:
        return "the problem is not valid Unicode"
    except TooLong as error:
        return f"the problem does not fit: {str(error).split(': ')[0]}"
    except Exception as error:  # raised by a user's task; its message may hold the text
        return f"the task cannot pose the problem ({type(error).__name__})"
    return ""


def prompts_of(model: Model, problem: Problem) -> dict[str, str]:
    """Returns a question's prompts, by the name of the random key used to sample after each."""
    task = model.dialogue.task
    return {"write": task.generator_prompt(problem.problem), "answer": task.solver_prompt(problem.problem)}


def answer(model: Model, adapters: Adapter | None, tasks: Sequence[Problem], keys_N: jax.Array) -> list[str]:
    """Returns greedy answers, each under its question's adapter or, for None, of the unadapted model."""
    prompts = model.dialogue.solver_prompts(tasks)
    _, responses = model.rollouts.respond(model.weights, adapters, prompts, keys_N, 1, temperature=0.0)
    return [row[0] for row in responses]


def write(model: Model, tasks: Sequence[Problem], keys_N: jax.Array) -> list[list[str]]:
    """Writes synthetic examples for each question with the model itself."""
    return model.rollouts.write_texts(model.weights, tasks, keys_N, model.num_written)[0]


def sample_answers(
    model: Model, prompts: tuple[np.ndarray, np.ndarray], keys: jax.Array, samples: int
) -> tuple[list[list[str]], np.ndarray]:
    """Samples answers of the unadapted model at temperature 1.

    Args:
        model: the model.
        prompts: solver prompts, as tokens [B, T] and lengths [B].
        keys: random keys [B].
        samples: answers per prompt.

    Returns:
        The answers, and the tokens [B] of each prompt and its samples.
    """
    drawn, responses = model.rollouts.respond(model.weights, None, prompts, keys, samples, temperature=1.0)
    return responses, prompts[1] + np.asarray(drawn.text.target_BT).sum((1, 2))


def parse(model: Model, tasks: Sequence[Problem], texts_NM: list[list[str]]) -> generate.SyntheticExamples:
    """Parses written texts and appends each question's real examples."""
    task, parsed_NM, all_texts_NM = model.dialogue.task, [], []
    for n, row in enumerate(texts_NM):
        # The tokenizer rejects lone surrogates.
        texts = [text[:MOST_CHARS].encode("utf-8", "replace").decode() for text in row]
        real = _real(model, tasks[n].id)
        found = [_parse_one(task, text, tasks[n].problem) for text in texts]
        parsed_NM.append([*found, *real])
        all_texts_NM.append([*texts, *(f"{example.problem} = {example.solution}" for example in real)])
    return model.dialogue.encode(tasks, all_texts_NM, parsed_NM)


def _parse_one(task: Any, text: str, problem: str) -> Example | Rejected:
    try:
        return task.parse_example(text, problem)
    except Exception as error:  # raised by a user's parser
        return Rejected(f"the parser failed ({type(error).__name__})")


def _real(model: Model, name: str) -> list[Example]:
    """The real examples of a question, a function of its id."""
    if not model.num_real:
        return []
    seed = np.frombuffer(hashlib.sha256(f"mass real {name}".encode("utf-8", "surrogatepass")).digest(), np.uint32)
    drawn = np.random.default_rng(seed).choice(len(model.real), model.num_real, replace=False)
    return [model.real[i] for i in drawn]


def update(
    model: Model,
    synthetic: generate.SyntheticExamples,
    used_NM: np.ndarray,
    keys_N: jax.Array,
    limits: bounds.UpdateLimits,
) -> Update:
    """Adapts to the selected examples and checks each update against the bounds.

    Args:
        model: the model.
        synthetic: examples of every question.
        used_NM: True for examples to train on.
        keys_N: keys of the fresh adapters.
        limits: bounds on an update.
    """
    loop = model.rollouts.loop
    adapters = loop.init_adapters(keys_N)
    found = adaptation.measured_adapt(loop, model.weights, adapters, used_NM.astype(np.float32), synthetic.examples)
    losses_NK, norms = np.asarray(found.losses_NK), {name: np.asarray(norm) for name, norm in found.norms.items()}
    judged_N = [
        bounds.judge(list(losses), {name: norm[n] for name, norm in norms.items()}, limits)
        for n, losses in enumerate(losses_NK)
    ]
    factors_N = np.array([judged.factor for judged in judged_N], np.float32)
    return Update(scale(found.adapters, factors_N), losses_NK, norms, judged_N)


def scale(adapters: Adapter, factors_N: np.ndarray) -> Adapter:
    """Multiplies each adapter's effect by its factor; a factor of 1 preserves every bit."""
    scaled = jax.vmap(lambda leaves, factor: lora.scaled(adapters.one(leaves), factor).leaves)
    return adapters.many(scaled(lora.checked(adapters, batched=True).leaves, jnp.asarray(factors_N)))


def within_limits(model: Model, limits: bounds.UpdateLimits) -> tuple[Model, str]:
    """Returns a model whose inner loop respects the limits, and why it is refused ("" if it is not)."""
    config, refused = bounds.within(model.config, limits)
    return with_loop(model, config.inner_steps, config.inner_lr), refused


def with_loop(model: Model, steps: int, rate: float) -> Model:
    """Returns a model with another number of inner steps and another inner learning rate."""
    config = model.config
    if (steps, rate) == (config.inner_steps, config.inner_lr):
        return model
    optimizer = adapt.fixed_inner_optimizer(config.inner_optimizer, rate, model.rollouts.loop.eps_root)
    loop = dataclasses.replace(model.rollouts.loop, num_steps=steps, optimizer=optimizer)
    return dataclasses.replace(
        model,
        config=dataclasses.replace(config, inner_steps=steps, inner_lr=rate),
        rollouts=dataclasses.replace(model.rollouts, loop=loop),
    )


def count_tokens(dialogue: generate.Dialogue, text: str) -> int:
    """Returns the number of tokens of a text, without special tokens."""
    return len(dialogue.tokenizer(text, add_special_tokens=False)["input_ids"])
