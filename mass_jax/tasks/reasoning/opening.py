"""Opens the families of reasoning-gym that the settings name."""

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence

from mass_jax.aliases import Tokenizer
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.llama.tokenizer import encode
from mass_jax.tasks import chat, example_form
from mass_jax.tasks.base import Example, Problem, Problems
from mass_jax.tasks.reasoning.bank import EVALUATION_SEED, Bank, Scored, Side, interleaved
from mass_jax.tasks.reasoning.catalogue import FITTING
from mass_jax.tasks.reasoning.scorer import Scorer
from mass_jax.tasks.reasoning.task import SYSTEM, ReasoningTask

NUM_EXAMPLES = 64  # training-side problems per family, from which correct examples are drawn
MAX_SHOTS = 8
_SHOWN_FAMILIES = 2  # families in the generator prompt, with two problems each
_SHOWN_SEED = -1
_WIDENINGS = 3


def open_families(config: Config, tokenizer: Tokenizer) -> tuple[ReasoningTask, Callable[[int], Problems], Scorer]:
    """Draws the problems that prompts show, and builds the task.

    Args:
        config: Settings.
        tokenizer: Tokenizer of the model, or None, which fits every problem.

    Returns:
        The task, the function from a random seed to its problems, and the scorer, which the caller closes.

    Raises:
        UserError: If a family or a setting is unusable.
    """
    example_form.refuse_other_forms(config.example_form, config.task, example_form.ANSWER_FIRST)
    train, test = _families(config)
    if config.num_shots > MAX_SHOTS:
        raise UserError(f"--num_shots={config.num_shots} must be between 0 and {MAX_SHOTS} for --task={config.task}")
    render = chat.renderer(tokenizer, SYSTEM)
    each = 2 + math.ceil(config.num_shots / len(train))
    samples = Bank(config.reasoning_level).draw(dict.fromkeys(train, each), Side.TRAIN, each, _SHOWN_SEED)
    shortest = sorted(samples, key=lambda family: sum(len(p.problem) for p in samples[family][:2]))[:_SHOWN_FAMILIES]
    shown = [(samples[f][0].problem, Example(samples[f][1].problem, samples[f][1].solution)) for f in shortest]
    rest = interleaved({family: problems[2:] for family, problems in samples.items()}, config.num_shots)
    hidden = frozenset(problem.problem for problems in samples.values() for problem in problems)
    scored: dict[str, Scored] = {}
    scorer = Scorer(config.reasoning_level, scored)
    task = ReasoningTask(
        scorer,
        shown,
        [Example(p.problem, p.solution) for p in rest],
        render,
        config.example_form,
        getattr(tokenizer, "all_special_tokens", ()),
    )
    bank = Bank(config.reasoning_level, functools.partial(_fits, config, tokenizer, task), hidden, scored)

    columns = functools.cache(functools.partial(_columns, bank, config, train, test))  # shared by all seeds

    @functools.lru_cache(maxsize=4)
    def problems(seed: int) -> Problems:
        count = config.num_train_problems
        drawn = _draw_enough(bank, {"train": train}, Side.TRAIN, count, seed, others=test)
        chosen = interleaved({family: drawn[family] for family in train}, count)
        return Problems(chosen, columns(), functools.partial(_oracle, drawn, seed))

    return task, problems, scorer


def _families(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the training and unseen families; "fitting" stands for all of `FITTING`."""
    train = FITTING if config.reasoning_train == ("fitting",) else tuple(dict.fromkeys(config.reasoning_train))
    test = tuple(dict.fromkeys(config.reasoning_test))
    if config.reasoning_train == ("fitting",):
        train = tuple(family for family in train if family not in test)
    if both := [family for family in test if family in train]:
        raise UserError(f"--reasoning_test={both[0]} is also in --reasoning_train; unseen families must be others")
    return train, test


def _columns(bank: Bank, config: Config, train: tuple[str, ...], test: tuple[str, ...]) -> dict[str, list[Problem]]:
    """Draws the evaluation problems of unseen and seen families."""
    groups, count = {"unseen": test, "seen": train}, config.num_eval_problems
    drawn = _draw_enough(bank, groups, Side.TEST, count, EVALUATION_SEED)
    return {
        column: interleaved({family: drawn[family] for family in families}, count)
        for column, families in groups.items()
    }


def _draw_enough(
    bank: Bank,
    groups: Mapping[str, Sequence[str]],
    side: Side,
    count: int,
    seed: int,
    others: Sequence[str] = (),
) -> dict[str, list[Problem]]:
    """Draws problems of families until each group has `count`; families with few problems give what they have."""
    each = [math.ceil(count / len(families)) for families in groups.values()]
    wanted = max(*each, NUM_EXAMPLES if side is Side.TRAIN else 1)
    families = [*(family for group in groups.values() for family in group), *others]
    for _ in range(_WIDENINGS):
        drawn = bank.draw(dict.fromkeys(families, 1), side, wanted, seed)
        short = [group for group in groups.values() if sum(len(drawn[family]) for family in group) < count]
        if not short:
            return drawn
        wanted *= 2
    flag = "num_train_problems" if side is Side.TRAIN else "num_eval_problems"
    found = sum(len(drawn[family]) for family in short[0])
    raise UserError(
        f"--{flag}={count} exceeds the {found} problems that fit of {', '.join(short[0])}; lower it, or "
        f"name more families"
    )


def _oracle(pools: Mapping[str, list[Problem]], seed: int, problem: Problem, count: int) -> list[Example]:
    """Samples correct examples of a problem's family from training questions."""
    rng = random.Random(f"mass reasoning oracle {seed} {problem.id}")
    others = [p for p in pools[problem.subject] if p.problem != problem.problem]
    if count > len(others):
        raise UserError(f"{count} correct examples requested, but family {problem.subject!r} has {len(others)}")
    return [Example(p.problem, p.solution) for p in rng.sample(others, count)]


def _fits(config: Config, tokenizer: Tokenizer, task: ReasoningTask, problem: Problem) -> bool:
    """Returns whether the prompts and the answer of a problem fit the token limits."""
    if tokenizer is None:
        return True
    return (
        len(encode(tokenizer, task.solver_prompt(problem.problem))) <= config.max_prompt_tokens
        and len(encode(tokenizer, task.generator_prompt(problem.problem))) <= config.max_generator_prompt_tokens
        and len(tokenizer(problem.solution, add_special_tokens=False)["input_ids"]) < config.max_answer_tokens
    )
