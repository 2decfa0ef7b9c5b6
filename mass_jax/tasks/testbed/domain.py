"""The testbed's domain: 160 invented operators; each belongs to a class, and each class has an arithmetic rule.

`7 zomu 4` has the value rule(class(zomu))(7, 4). Looking up the class and then its rule takes two hops, for which a
direct answer of two digits has no room. Besides its true class, each operator has a "folk" class, which most of the
pretraining text follows. Depending on the subject, the folk class is correct for 75 % down to 10 % of the operators.
"""

import dataclasses
import json
import pathlib
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

RULES: Mapping[str, Callable[[int, int], int]] = {
    "sum": lambda x, y: x + y,
    "gap": lambda x, y: abs(x - y),
    "product": lambda x, y: x * y,
    "larger": lambda x, y: max(x, y),
    "double": lambda x, y: 2 * x + y,
}
SUBJECTS: Mapping[str, float] = {"harbor": 0.75, "meadow": 0.55, "forge": 0.40, "quarry": 0.25, "tundra": 0.10}
CLASSES_PER_RULE = 8
OPERATORS_PER_CLASS = 4
DIGITS = range(10)
HELD_OUT_SHARE = 10  # one in this many cells (operator, x, y) occurs in no training text

Cell = tuple[str, int, int]
"""An operator with two operands: (operator, x, y)."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """An invented operator.

    Attributes:
        name: The word used in problem texts.
        subject: Its group; a key of `SUBJECTS`.
        true_class: Class that determines its value.
        folk_class: Class that most of the pretraining text assumes.
    """

    name: str
    subject: str
    true_class: str
    folk_class: str


@dataclasses.dataclass(frozen=True)
class Domain:
    """All operators and classes of one generated domain.

    Attributes:
        seed: Random seed of the domain; also determines the held-out cells.
        operators: Operators by name.
        class_rules: Rule name of each class.

    Example:
        >>> domain = Domain.generate(seed=7)
        >>> len(domain.operators), len(domain.class_rules)
        (160, 40)
        >>> operator = next(iter(domain.operators.values()))
        >>> domain.value(operator.name, 3, 4) == RULES[domain.class_rules[operator.true_class]](3, 4)
        True
    """

    seed: int
    operators: Mapping[str, Operator]
    class_rules: Mapping[str, str]

    def value(self, operator: str, x: int, y: int) -> int:
        """Returns the true value of `x operator y`."""
        return self.value_by_class(self.operators[operator].true_class, x, y)

    def value_by_class(self, class_name: str, x: int, y: int) -> int:
        """Returns the value of `x operator y` for an operator of class `class_name`."""
        return RULES[self.class_rules[class_name]](x, y)

    def is_held_out(self, operator: str, x: int, y: int) -> bool:
        """Returns whether a cell is excluded from all training text, by a hash of the cell."""
        return zlib.crc32(f"{self.seed} {operator} {x} {y}".encode()) % HELD_OUT_SHARE == 0

    def cells(self, held_out: bool, operators: Iterable[str] | None = None) -> list[Cell]:
        """Returns the cells that are held out, or those that are not, in a fixed order.

        Args:
            held_out: which of them.
            operators: names of operators; None is all.
        """
        names = self.operators if operators is None else operators
        grid = [(name, x, y) for name in names for x in DIGITS for y in DIGITS]
        return [cell for cell in grid if self.is_held_out(*cell) == held_out]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the domain as human-readable JSON."""
        rows = [dataclasses.asdict(operator) for operator in self.operators.values()]
        lines = ",\n    ".join(json.dumps(row) for row in rows)
        head = f'"seed": {self.seed},\n  "class_rules": {json.dumps(dict(self.class_rules))}'
        pathlib.Path(path).write_text(f'{{\n  {head},\n  "operators": [\n    {lines}\n  ]\n}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Domain":
        """Reads a file that `save` wrote.

        Raises:
            ValueError: If the file is not a testbed domain; the message names the file.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            operators = [Operator(**row) for row in data["operators"]]
            return cls(int(data["seed"]), {operator.name: operator for operator in operators}, data["class_rules"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: not a testbed domain ({error}); create one with experiments.tools.pretrain_tiny"
            ) from None

    @classmethod
    def generate(cls, seed: int) -> "Domain":
        """Generates a domain: names, classes, subjects and folk classes."""
        rng = random.Random(f"mass testbed {seed}")
        names = _invented_words(rng)
        classes = [next(names) for _ in range(CLASSES_PER_RULE * len(RULES))]
        class_rules = {name: list(RULES)[i // CLASSES_PER_RULE] for i, name in enumerate(classes)}
        true_classes = [name for name in classes for _ in range(OPERATORS_PER_CLASS)]
        rng.shuffle(true_classes)
        subjects = [list(SUBJECTS)[i * len(SUBJECTS) // len(true_classes)] for i in range(len(true_classes))]
        operators = []
        for subject in SUBJECTS:
            members = [name for name, where in zip(true_classes, subjects, strict=True) if where == subject]
            wrong = set(rng.sample(range(len(members)), len(members) - round(SUBJECTS[subject] * len(members))))
            for i, true_class in enumerate(members):
                others = [name for name in classes if class_rules[name] != class_rules[true_class]]
                folk_class = rng.choice(others) if i in wrong else true_class
                operators.append(Operator(next(names), subject, true_class, folk_class))
        return cls(seed, {operator.name: operator for operator in operators}, class_rules)


def _invented_words(rng: random.Random) -> Iterator[str]:
    """Returns distinct words of two syllables in random order; none is the name of a rule or subject."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = [first + second for first in syllables for second in syllables]
    rng.shuffle(words)
    return iter(words)
