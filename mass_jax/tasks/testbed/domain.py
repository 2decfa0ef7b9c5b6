"""The testbed's world: 160 invented operators, each of a class, each class with a rule of arithmetic.

`7 zomu 4` has the value rule(class(zomu))(7, 4). Going from operator to class to rule takes two hops, which a direct
answer of two digits has no room to write down. Beside the true class each operator has a "folk" class, the one most
pretraining text believes in. By subject, folk belief is right for 75 % down to 10 % of the operators.
"""

import dataclasses
import json
import pathlib
import random
import zlib
from collections.abc import Callable, Iterator, Mapping

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
HELD_OUT_SHARE = 10  # one cell (operator, x, y) in this many is in no training text

Cell = tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class Operator:
    """One invented operator: its name, subject, true class and the class that folk belief gives it."""

    name: str
    subject: str
    true_class: str
    folk_class: str


@dataclasses.dataclass(frozen=True)
class Domain:
    """All operators and classes of one generated world.

    Args:
        seed: what the world was generated from; also decides which cells are held out.
        operators: by name.
        class_rules: class name -> rule name.

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
        """True value of `x operator y`."""
        return self.value_by_class(self.operators[operator].true_class, x, y)

    def value_by_class(self, class_name: str, x: int, y: int) -> int:
        """Value that `x ? y` would have if the operator were of class `class_name`."""
        return RULES[self.class_rules[class_name]](x, y)

    def is_held_out(self, operator: str, x: int, y: int) -> bool:
        """Whether a cell is kept out of every training text; a hash, so that no list has to be shipped."""
        return zlib.crc32(f"{self.seed} {operator} {x} {y}".encode()) % HELD_OUT_SHARE == 0

    def cells(self, held_out: bool) -> list[Cell]:
        """All cells (operator, x, y) inside or outside the training text, in a fixed order."""
        grid = [(name, x, y) for name in self.operators for x in DIGITS for y in DIGITS]
        return [cell for cell in grid if self.is_held_out(*cell) == held_out]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the world as readable JSON."""
        rows = [dataclasses.asdict(operator) for operator in self.operators.values()]
        lines = ",\n    ".join(json.dumps(row) for row in rows)
        head = f'"seed": {self.seed},\n  "class_rules": {json.dumps(dict(self.class_rules))}'
        pathlib.Path(path).write_text(f'{{\n  {head},\n  "operators": [\n    {lines}\n  ]\n}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Domain":
        """Reads what `save` wrote.

        Raises:
            ValueError: if the file is not such a world; the message names the file.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            operators = [Operator(**row) for row in data["operators"]]
            return cls(int(data["seed"]), {operator.name: operator for operator in operators}, data["class_rules"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no testbed domain ({error}); make one with experiments.pretrain_tiny") from None

    @classmethod
    def generate(cls, seed: int) -> "Domain":
        """Draws a world: names, classes, subjects and folk beliefs, all from `seed`."""
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
    """Endless distinct words of two syllables; none is a rule or subject."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = [first + second for first in syllables for second in syllables]
    rng.shuffle(words)
    return iter(words)
