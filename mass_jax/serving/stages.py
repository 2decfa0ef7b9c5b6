"""The stages of solving a batch, each a function of its inputs: answer, write, look, update.

Every stage takes a batch filled up to a fixed size, and what it finds for a question depends on that question's own
keys and texts. Letters: N questions, M examples of a question, R texts of the suite.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import lora
from mass_jax.method import adapt, generate
from mass_jax.method.models import Weights
from mass_jax.method.text import TooLong
from mass_jax.serving import adaptation
from mass_jax.serving.guards import bounds
from mass_jax.serving.guards.gates import AnswerCheck, Calibration, Candidate, Gate, Recomputes
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.training import train
from mass_jax.training.components import Parts

MOST_CHARS = 100_000  # of a text; what is longer is no question and no example
KEY_NAMES = ("write", "adapter", "answer", "check")
REAL_EXAMPLES = 64  # how many problems of training stand for real ones where nobody gives others


@dataclasses.dataclass(frozen=True)
class Model:
    """What answers and adapts.

    Args:
        parts: model, dialogue and settings; its inner loop is within the policy's limits.
        weights: what is adapted and never changed.
        gates: what judges the examples.
        real: real examples to compare with and to mix in.
        num_real: how many of a question's examples are real.
    """

    parts: Parts
    weights: Weights
    gates: Sequence[Gate]
    real: Sequence[Example]
    num_real: int

    @property
    def num_written(self) -> int:
        return self.parts.config.num_test_examples - self.num_real

    def needs(self, kind: type) -> Any:
        """The gate of a kind, or None."""
        return next((gate for gate in self.gates if isinstance(gate, kind)), None)


class Looked(NamedTuple):
    """A batch's examples with what the gates may know.

    Args:
        practice: as rows, all of them.
        candidates_NM: for the gates.
        prompts_N: tokens of the prompts that they were written under.
        checked_N: tokens that looking took.
    """

    practice: generate.Practice
    candidates_NM: list[list[Candidate]]
    prompts_N: np.ndarray
    checked_N: np.ndarray


class Update(NamedTuple):
    """A batch's updates, judged; an unused one leaves its adapter without effect on the answer.

    Args:
        adapters: leading axis N, scaled where a bound says so.
        losses_NK: inner losses before each step and after the last.
        norms: relative norms by projection and in all, each [N], before scaling.
        judged_N: what the bounds say.
    """

    adapters: Any
    losses_NK: np.ndarray
    norms: Mapping[str, np.ndarray]
    judged_N: list[bounds.Judged]


def keys_of(seed: int, names: Sequence[str]) -> np.ndarray:
    """Four random keys a question, [N, 4, 2] uint32: a hash of seed and name, so that they hang on no other question.

    >>> keys_of(0, ["a", "b"])[1].tolist() == keys_of(0, ["b"])[0].tolist()
    True
    """
    digests = [hashlib.sha256(f"mass solve {seed} {name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    return np.frombuffer(b"".join(digests), ">u4").astype(np.uint32).reshape(len(names), len(KEY_NAMES), 2)


def keys_named(keys_N42: np.ndarray, name: str) -> jax.Array:
    """The keys of one purpose, [N]."""
    return jax.random.wrap_key_data(jnp.asarray(keys_N42[:, KEY_NAMES.index(name)]), impl="threefry2x32")


def unfit(parts: Parts, problem: str) -> str:
    """Why a question cannot be put to the model; "" if it can."""
    try:
        problem.encode()
        parts.dialogue.solver_prompts([Problem("", problem, "", "")])
        parts.dialogue.generator_prompts([Problem("", problem, "", "")])
    except UnicodeEncodeError:
        return "the problem is no valid Unicode"
    except TooLong as error:
        return f"the problem does not fit: {str(error).split(': ')[0]}"
    except Exception as error:  # anyone's task; its message may hold the text
        return f"the task cannot pose the problem ({type(error).__name__})"
    return ""


def prompts_of(model: Model, problem: Problem) -> dict[str, str]:
    """A question's prompts, by the name of the key that what follows them is drawn with."""
    task = model.parts.dialogue.task
    return {"write": task.generator_prompt(problem.problem), "answer": task.solver_prompt(problem.problem)}


def answer(model: Model, adapters: Any, tasks: Sequence[Problem], keys_N: jax.Array) -> list[str]:
    """Greedy answers, under each question's adapter or without any."""
    prompts = model.parts.dialogue.solver_prompts(tasks)
    _, responses = train.respond(model.parts, model.weights, adapters, prompts, keys_N, 1, temperature=0.0)
    return [row[0] for row in responses]


def write(model: Model, tasks: Sequence[Problem], keys_N: jax.Array) -> list[list[str]]:
    """What the model writes as practice for each question."""
    return train.write_examples(model.parts, model.weights, tasks, keys_N, model.num_written)[0].texts_NM


def parse(model: Model, tasks: Sequence[Problem], texts_NM: list[list[str]]) -> generate.Practice:
    """Written texts, parsed, with each question's share of real examples behind them."""
    task, parsed_NM, all_texts_NM = model.parts.dialogue.task, [], []
    for n, row in enumerate(texts_NM):
        # no lone surrogates for the tokenizer
        texts = [text[:MOST_CHARS].encode("utf-8", "replace").decode() for text in row]
        real = _real(model, tasks[n].id)
        found = [_parse_one(task, text, tasks[n].problem) for text in texts]
        parsed_NM.append([*found, *real])
        all_texts_NM.append([*texts, *(f"{example.problem} = {example.solution}" for example in real)])
    return model.parts.dialogue.encode(tasks, all_texts_NM, parsed_NM)


def _parse_one(task: Any, text: str, problem: str) -> Example | Rejected:
    try:
        return task.parse_example(text, problem)
    except Exception as error:  # anyone's parser, on anyone's text
        return Rejected(f"the parser failed ({type(error).__name__})")


def _real(model: Model, name: str) -> list[Example]:
    """This question's share of real examples, always the same ones."""
    if not model.num_real:
        return []
    seed = np.frombuffer(hashlib.sha256(f"mass real {name}".encode("utf-8", "surrogatepass")).digest(), np.uint32)
    drawn = np.random.default_rng(seed).choice(len(model.real), model.num_real, replace=False)
    return [model.real[i] for i in drawn]


def look(model: Model, tasks: Sequence[Problem], practice: generate.Practice, keys_N: jax.Array) -> Looked:
    """Measures of each example what the gates that are on ask for."""
    shape = practice.kept_NM.shape
    nll_NM = agreement_NM = None
    checked_N = np.zeros(shape[0], int)
    if model.needs(Calibration):
        nll_NM = np.asarray(adaptation.example_nll(model.parts.solver, model.weights, practice.examples))
        checked_N += np.asarray(practice.examples.mask_BT).sum((1, 2))
    recomputed_NM = [[_recompute(model, parsed) for parsed in row] for row in practice.parsed_NM]
    check = model.needs(AnswerCheck)
    if check and any(known is None for row in recomputed_NM for known in row):
        agreement_NM, sampled_N = _agreement(model, tasks, practice, keys_N, check.samples)
        checked_N += sampled_N
    candidates = [
        [
            Candidate(
                text=practice.texts_NM[n][m],
                parsed=practice.parsed_NM[n][m],
                tokens=count_tokens(model.parts.dialogue, practice.texts_NM[n][m]),
                source="written" if m < model.num_written else "real",
                nll=_known(nll_NM, practice, n, m),
                agreement=_known(agreement_NM, practice, n, m),
                recomputed=recomputed_NM[n][m],
            )
            for m in range(shape[1])
        ]
        for n in range(shape[0])
    ]
    return Looked(practice, candidates, model.parts.dialogue.generator_prompts(tasks)[1], checked_N)


def real_nll(model: Model) -> list[float]:
    """Losses of the real examples, nats a token."""
    problems = [Problem("", example.problem, example.solution, "") for example in model.real]
    practice = model.parts.dialogue.encode(problems, [[""]] * len(problems), [[example] for example in model.real])
    nll_N1 = np.asarray(adaptation.example_nll(model.parts.solver, model.weights, practice.examples))
    return [float(nll) for nll, kept in zip(nll_N1[:, 0], practice.kept_NM[:, 0], strict=True) if kept]


def update(
    model: Model, practice: generate.Practice, used_NM: np.ndarray, keys_N: jax.Array, limits: bounds.UpdateLimits
) -> Update:
    """Adapts to the examples that are used, and judges each update."""
    parts = model.parts
    adapters = parts.loop.init_adapters(keys_N)
    found = adaptation.measured_adapt(
        parts.loop, model.weights, adapters, used_NM.astype(np.float32), practice.examples
    )
    losses_NK, norms = np.asarray(found.losses_NK), {name: np.asarray(norm) for name, norm in found.norms.items()}
    judged_N = [
        bounds.judge(list(losses), {name: norm[n] for name, norm in norms.items()}, limits)
        for n, losses in enumerate(losses_NK)
    ]
    factors_N = np.array([judged.factor for judged in judged_N], np.float32)
    return Update(scale(found.adapters, factors_N), losses_NK, norms, judged_N)


def scale(adapters: Any, factors_N: np.ndarray) -> Any:
    """Each adapter with its effect times its factor; a factor of 1 leaves the bits as they are."""
    return jax.vmap(lora.scaled)(adapters, jnp.asarray(factors_N))  # type: ignore[arg-type]


def within_limits(parts: Parts, limits: bounds.UpdateLimits) -> tuple[Parts, str]:
    """The parts with their inner loop held to the limits, and why they are refused ("" if they are not)."""
    config, refused = bounds.within(parts.config, limits)
    return with_loop(parts, config.inner_steps, config.inner_lr), refused


def with_loop(parts: Parts, steps: int, rate: float) -> Parts:
    """The same with another number of inner steps and another rate."""
    if (steps, rate) == (parts.config.inner_steps, parts.config.inner_lr):
        return parts
    optimizer = adapt.OPTIMIZERS[parts.config.inner_optimizer](rate)
    loop = dataclasses.replace(parts.loop, num_steps=steps, optimizer=optimizer)
    config = dataclasses.replace(parts.config, inner_steps=steps, inner_lr=rate)
    return dataclasses.replace(parts, loop=loop, config=config)


def _known(values_NM: np.ndarray | None, practice: generate.Practice, n: int, m: int) -> float | None:
    """A measure, where there was a row to measure."""
    return None if values_NM is None or not practice.kept_NM[n, m] else float(values_NM[n, m])


def count_tokens(dialogue: generate.Dialogue, text: str) -> int:
    """Tokens of a text."""
    return len(dialogue.tokenizer(text, add_special_tokens=False)["input_ids"])


def _recompute(model: Model, parsed: Example | Rejected) -> bool | None:
    """Whether a solution is what the task itself computes; None where it computes none."""
    task = model.parts.dialogue.task
    if isinstance(parsed, Rejected) or not isinstance(task, Recomputes):
        return None

    def right() -> bool | None:
        computed = task.recompute(parsed.problem)
        if computed is None:
            return None
        return task.verify([Problem("", parsed.problem, computed, computed)], [parsed.solution])[0] is Verdict.RIGHT

    return _or(False, right)


def _or(otherwise: Any, call: Callable[[], Any]) -> Any:
    """What a call gives; anyone's task may fail on anyone's text, at the cost of that text alone."""
    try:
        return call()
    except Exception:
        return otherwise


def _agreement(
    model: Model, tasks: Sequence[Problem], practice: generate.Practice, keys_N: jax.Array, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the model's sampled answers to each example's problem that are the example's own; tokens it took."""
    dialogue, (N, M) = model.parts.dialogue, practice.kept_NM.shape
    asked = [
        Problem("", parsed.problem, parsed.solution, _final(dialogue.task, parsed.solution))
        if isinstance(parsed, Example) and not unfit(model.parts, parsed.problem)
        else None
        for row in practice.parsed_NM
        for parsed in row
    ]
    stand_ins = [task for task in tasks for _ in range(M)]  # so that the shape stays the same
    prompts = dialogue.solver_prompts([task or other for task, other in zip(asked, stand_ins, strict=True)])
    keys = jax.vmap(lambda key: jax.random.split(key, M))(keys_N).reshape(N * M)
    drawn, responses = train.respond(model.parts, model.weights, None, prompts, keys, samples, temperature=1.0)
    shares = [_share(dialogue.task, task, row) for task, row in zip(asked, responses, strict=True)]
    taken = prompts[1] + np.asarray(drawn.text.target_BT).sum((1, 2))
    return np.array(shares).reshape(N, M), taken.reshape(N, M).sum(-1).astype(int)


def _share(task: Any, problem: Problem | None, responses: Sequence[str]) -> float:
    """Share of the responses that are right if the problem's answer is; each different one is checked once."""
    if problem is None:
        return 0.0
    counts = collections.Counter(responses)
    verdicts = _or([Verdict.WRONG] * len(counts), lambda: task.verify([problem] * len(counts), [*counts]))
    agreed = sum(count for count, verdict in zip(counts.values(), verdicts, strict=True) if verdict is Verdict.RIGHT)
    return agreed / len(responses)


def _final(task: Any, solution: str) -> str:
    """The final answer in a solution, where the task can tell it."""
    found = _or(None, lambda: task.final_answer(solution))
    return solution if found is None else found
