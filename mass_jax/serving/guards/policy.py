"""The operator's policy: who may adapt what, at what cost, and behind which gates. Pure functions.

`policy_file.read_policy` reads it from a file. Without a policy nothing is adapted.
"""

import collections
import dataclasses
import json
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.serving.guards.bounds import UpdateLimits
from mass_jax.serving.guards.gates import SHIPPED
from mass_jax.serving.guards.regression import Tolerance

HOUR = 3600.0

Count = Annotated[int, pydantic.Field(ge=0, strict=True)]
"""A whole number of 0 or more, as pydantic checks it."""

Amount = Annotated[float, pydantic.Field(ge=0, strict=True, allow_inf_nan=False)]
"""A finite number of 0 or more, as pydantic checks it."""


@dataclasses.dataclass(frozen=True)
class Permission:
    """What some users may spend on some tasks; "*" matches every name.

    Attributes:
        users: names of users.
        tasks: names of tasks.
        tokens_per_question: largest number of tokens for adapting to one question, over all phases.
        questions_per_hour: questions per user within the last 60 minutes.
        tokens_per_hour: tokens per user within the last 60 minutes; each question is charged its worst case.
    """

    users: tuple[str, ...] = ("*",)
    tasks: tuple[str, ...] = ("*",)
    tokens_per_question: int = 20_000
    questions_per_hour: int = 10_000
    tokens_per_hour: int = 20_000_000


@dataclasses.dataclass(frozen=True)
class Policy:
    """The operator's policy.

    Attributes:
        rules: permissions; the first one that matches user and task applies, and without a match nothing is adapted.
        gates: required gates, by name, with their settings.
        min_examples: smallest number of synthetic examples that must pass the gates for an update.
        real_share: share of real examples among those of a question, in [0, 1).
        limits: limits on the update.
        regression: tolerance on the regression suite.
    """

    rules: tuple[Permission, ...] = (Permission(),)
    gates: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {name: {} for name in SHIPPED})
    min_examples: int = 2
    real_share: float = 0.0
    limits: UpdateLimits = UpdateLimits()  # noqa: RUF009  (frozen)
    regression: Tolerance = Tolerance()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        for name, settings in self.gates.items():
            if name not in SHIPPED:
                raise UserError(f"gate {name!r} is unknown; {nearest(name, SHIPPED)}")
            _check_settings(name, settings)
        if not 0 <= self.real_share < 1:
            raise UserError(f"real_share={self.real_share} is out of range; give a share from 0 to below 1")
        if self.min_examples < 1:
            raise UserError(f"min_examples={self.min_examples} is too small; give 1 or more")
        if self.limits.excess not in ("refuse", "scale"):
            raise UserError(f"limits.excess={self.limits.excess!r} is unknown; give 'refuse' or 'scale'")

    def rule(self, user: str, task: str) -> Permission | None:
        """Returns the first rule that matches this user and task."""
        named = (r for r in self.rules if _names(r.users, user) and _names(r.tasks, task))
        return next(named, None)

    def to_json(self) -> str:
        """Returns the content of the policy file."""
        return json.dumps({"version": 1} | dataclasses.asdict(self), indent=2) + "\n"


class Permit(collections.namedtuple("Permit", ["granted", "reason"])):
    """Verdict on a request to adapt.

    Attributes:
        granted: number of questions that may be adapted to.
        reason: why the others may not.
    """

    granted: int
    reason: str


class Ledger:
    """Permissions granted to each user within the last hour, read from the log."""

    def __init__(self) -> None:
        self._grants: collections.deque[tuple[float, str, int, int]] = collections.deque()

    def note(self, record: Mapping[str, Any]) -> None:
        """Adds a record of the log; only grants count."""
        if record.get("kind") == "grant":
            self._grants.append((record["at"], record["user"], record["questions"], record["tokens"]))

    def spent(self, user: str, now: float) -> tuple[int, int]:
        """Returns the questions and tokens granted to a user within the last hour.

        Grants from the future count too, so that setting the clock back frees no budget.

        Args:
            user: name of the user.
            now: seconds since the epoch.
        """
        self._grants = collections.deque(grant for grant in self._grants if grant[0] > now - HOUR)
        mine = [grant for grant in self._grants if grant[1] == user]
        return sum(grant[2] for grant in mine), sum(grant[3] for grant in mine)


def permit(policy: Policy, ledger: Ledger, user: str, task: str, asked: int, tokens_each: int, now: float) -> Permit:
    """Returns how many of `asked` questions may be adapted to.

    Args:
        policy: the policy.
        ledger: earlier grants.
        user: who asks.
        task: name of the task.
        asked: number of questions.
        tokens_each: worst-case tokens of one question.
        now: seconds since the epoch.

    >>> policy = Policy(rules=(Permission(users=("ada",), questions_per_hour=3),))
    >>> permit(policy, Ledger(), "ada", "testbed", asked=5, tokens_each=10, now=0.0)
    Permit(granted=3, reason='policy: 3 questions an hour are granted')
    >>> permit(policy, Ledger(), "eve", "testbed", asked=1, tokens_each=10, now=0.0).reason
    "policy: no rule lets 'eve' adapt to 'testbed'"
    """
    rule = policy.rule(user, task)
    if rule is None:
        return Permit(0, f"policy: no rule lets {user!r} adapt to {task!r}")
    if tokens_each > rule.tokens_per_question:
        return Permit(0, f"policy: a question may take {tokens_each} tokens, over the limit {rule.tokens_per_question}")
    questions, tokens = ledger.spent(user, now)
    left = rule.questions_per_hour - questions
    if left < min(asked, (rule.tokens_per_hour - tokens) // max(tokens_each, 1)):
        return Permit(max(left, 0), f"policy: {rule.questions_per_hour} questions an hour are granted")
    affordable = max((rule.tokens_per_hour - tokens) // max(tokens_each, 1), 0)
    return Permit(min(asked, affordable), f"policy: {rule.tokens_per_hour} tokens an hour are granted")


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Checks the settings of a gate. `real_nll` is measured, so it is not one of them."""
    defaults = {"margin": 0.5} if name == "calibration" else dataclasses.asdict(SHIPPED[name]())
    for key, value in settings.items():
        if key not in defaults:
            raise UserError(
                f"gates.{name} has an unknown setting {key!r}; {nearest(key, defaults) if defaults else 'it has none'}"
            )
        try:
            pydantic.TypeAdapter(Count if isinstance(defaults[key], int) else Amount).validate_python(value)
        except pydantic.ValidationError:
            raise UserError(f"gates.{name}.{key}={short(value)} must be a number of 0 or more") from None


def _names(listed: tuple[str, ...], name: str) -> bool:
    return "*" in listed or name in listed


def short(value: Any) -> str:
    """Returns a value from a file, abbreviated and printable, for an error message."""
    return reprlib.repr(value).encode("utf-8", "backslashreplace").decode()
