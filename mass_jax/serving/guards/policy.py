"""The policy file: who may adapt what, at what expense, behind which gates. Pure but for reading the file.

Whatever is absent, unknown or of the wrong kind is refused: without a policy nothing is adapted.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, get_type_hints

from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.serving.guards.bounds import UpdateLimits
from mass_jax.serving.guards.gates import SHIPPED
from mass_jax.serving.guards.regression import Tolerance

HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Permission:
    """What some users may spend on some tasks; "*" stands for all.

    Args:
        users, tasks: names.
        tokens_per_question: most tokens that a question's adaptation may take, written, checked and trained together.
        questions_per_hour, tokens_per_hour: of each user, over the last 60 minutes, charged at a question's worst case.
    """

    users: tuple[str, ...] = ("*",)
    tasks: tuple[str, ...] = ("*",)
    tokens_per_question: int = 20_000
    questions_per_hour: int = 10_000
    tokens_per_hour: int = 20_000_000


@dataclasses.dataclass(frozen=True)
class Policy:
    """All that an operator decides.

    Args:
        rules: the first that names user and task holds; none: not allowed.
        gates: gates that must be on, with their settings.
        min_examples: fewest written examples that must pass; with fewer there is no update.
        real_share: share of the practice that is real examples, in [0, 1).
        limits: on the update.
        regression: what the suite tolerates.
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
            raise UserError(f"real_share={self.real_share} is no share; give one from 0 to below 1")
        if self.min_examples < 1:
            raise UserError(f"min_examples={self.min_examples} would adapt to nothing; give 1 or more")
        if self.limits.excess not in ("refuse", "scale"):
            raise UserError(f"limits.excess={self.limits.excess!r} is unknown; give 'refuse' or 'scale'")

    def rule(self, user: str, task: str) -> Permission | None:
        """The first rule that names this user and task."""
        named = (r for r in self.rules if _names(r.users, user) and _names(r.tasks, task))
        return next(named, None)

    def to_json(self) -> str:
        return json.dumps({"version": 1} | dataclasses.asdict(self), indent=2) + "\n"


class Permit(collections.namedtuple("Permit", ["granted", "reason"])):
    """How many of the asked questions may be adapted to, and why not the others."""

    granted: int
    reason: str


class Ledger:
    """What each user was granted within the last hour, from the grants in the log."""

    def __init__(self) -> None:
        self._grants: collections.deque[tuple[float, str, int, int]] = collections.deque()

    def note(self, record: Mapping[str, Any]) -> None:
        """Takes notice of a record of the log; only grants count."""
        if record.get("kind") == "grant":
            self._grants.append((record["at"], record["user"], record["questions"], record["tokens"]))

    def spent(self, user: str, now: float) -> tuple[int, int]:
        """Questions and tokens; a grant from the future counts too, since a clock that was set back frees nothing."""
        self._grants = collections.deque(grant for grant in self._grants if grant[0] > now - HOUR)
        mine = [grant for grant in self._grants if grant[1] == user]
        return sum(grant[2] for grant in mine), sum(grant[3] for grant in mine)


def permit(policy: Policy, ledger: Ledger, user: str, task: str, asked: int, tokens_each: int, now: float) -> Permit:
    """How many of `asked` questions may be adapted to.

    Args:
        policy: the policy.
        ledger: what was granted before.
        user, task: who asks, and of what.
        asked: questions.
        tokens_each: worst case of one question.
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


def read_policy(path: pathlib.Path) -> Policy:
    """Reads a policy file: all keys must be there, no others, each of its kind.

    Raises:
        UserError: anything else, in one line that names file, key and fix.
    """
    fix = "`python -m experiments.audit policy` prints one to start from"
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_repeats)
    except FileNotFoundError:
        raise UserError(f"there is no policy {path}, and without one nothing is adapted; {fix}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"policy {path} cannot be read ({error}), so nothing is adapted; {fix}") from None
    try:
        if not isinstance(data, dict) or data.get("version") != 1:
            raise UserError("version must be 1")
        return _read(Policy, {key: value for key, value in data.items() if key != "version"}, "policy")
    except UserError as error:
        raise UserError(f"policy {path}: {error}; nothing is adapted; {fix}") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _read(cls: Any, data: Any, where: str) -> Any:
    """A dataclass from a JSON object."""
    if not isinstance(data, dict):
        raise UserError(f"{where} must be an object, not {_short(data)}")
    hints = get_type_hints(cls)
    if missing := sorted(set(hints) - set(data)):
        raise UserError(f"{where} lacks {missing[0]!r}")
    if extra := sorted(set(data) - set(hints)):
        raise UserError(f"{where} has an unknown key {extra[0]!r}; {nearest(extra[0], hints)}")
    return cls(**{name: _value(data[name], getattr(cls, name, None), name, f"{where}.{name}") for name in hints})


def _value(value: Any, default: Any, name: str, where: str) -> Any:
    """One value, of the kind of its default."""
    if dataclasses.is_dataclass(default):
        return _read(type(default), value, where)
    if name == "gates":
        if not isinstance(value, dict) or not all(isinstance(settings, dict) for settings in value.values()):
            raise UserError(f"{where} must be an object of objects, not {_short(value)}")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list) or not value:
            raise UserError(f"{where} must be a list that is not empty, not {_short(value)}")
        if name == "rules":
            return tuple(_read(Permission, item, f"{where}[{i}]") for i, item in enumerate(value))
        if not all(isinstance(item, str) for item in value):
            raise UserError(f"{where} must be a list of names, not {_short(value)}")
        return tuple(value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise UserError(f"{where} must be a text, not {_short(value)}")
        return value
    if not _is_amount(value, whole=isinstance(default, int)):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UserError(f"{where} must be {kind} of 0 or more, not {_short(value)}")
    return value


def _is_amount(value: Any, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 <= value < float("inf")  # False for NaN


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Whether a gate takes these settings; `real_nll` is measured, never set."""
    defaults = {"margin": 0.5} if name == "calibration" else dataclasses.asdict(SHIPPED[name]())
    for key, value in settings.items():
        if key not in defaults:
            raise UserError(
                f"gates.{name} has an unknown setting {key!r}; {nearest(key, defaults) if defaults else 'it has none'}"
            )
        if not _is_amount(value, whole=isinstance(defaults[key], int)):
            raise UserError(f"gates.{name}.{key} must be a number of 0 or more, not {_short(value)}")


def _names(listed: tuple[str, ...], name: str) -> bool:
    return "*" in listed or name in listed


def _short(value: Any) -> str:
    return repr(value)[:40]
