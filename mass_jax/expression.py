"""Grammar of optimizers on the command line, such as `clip_by_global_norm(1.0) | adam(b1=0.8, eps_root=auto)`.

    chain    := call ("|" call)*
    call     := name [ "(" [ argument ("," argument)* ] ")" ]
    argument := [ identifier "=" ] value
    value    := number | True | False | None | auto | chain
    name     := dotted name of optax | module:function | path/to/file.py:function

The parser takes linear time and evaluates nothing. `mass_jax.metagrad.building` builds the optimizer. Standard library
only.
"""

import contextlib
import dataclasses
import enum
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from mass_jax.errors import UserError

MAX_LENGTH = 2000
MAX_DEPTH = 16
CUSTOM = "custom"  # stands for an optimizer that was passed from Python
_MARKS = "()=,|"


class Auto(enum.Enum):
    """The value `auto`: to be measured before training."""

    AUTO = "auto"


AUTO = Auto.AUTO
_CONSTANTS: dict[str, "Value"] = {"True": True, "False": False, "None": None, "auto": AUTO}


@dataclasses.dataclass(frozen=True)
class Argument:
    """Argument of a call.

    Attributes:
        name: name of a keyword argument; None for a positional one.
        value: its value.
        position: number of its first character, from 1.
    """

    name: str | None
    value: "Value"
    position: int = dataclasses.field(default=0, compare=False)

    def __str__(self) -> str:
        return text_of(self.value) if self.name is None else f"{self.name}={text_of(self.value)}"


@dataclasses.dataclass(frozen=True)
class Call:
    """Call of a function, or its bare name.

    Attributes:
        name: name of the function.
        arguments: its arguments; empty for a bare name.
        position: number of its first character, from 1.
    """

    name: str
    arguments: tuple[Argument, ...] = ()
    position: int = dataclasses.field(default=0, compare=False)

    @property
    def is_path(self) -> bool:
        """True if the function is in the user's own code, `module:function` or `file.py:function`."""
        return ":" in self.name

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})" if self.arguments else self.name


@dataclasses.dataclass(frozen=True)
class Chain:
    """Transformations that are applied one after the other.

    Attributes:
        calls: at least one.
    """

    calls: tuple[Call, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.calls))


Value: TypeAlias = "int | float | bool | Auto | Chain | None"


def text_of(value: object) -> str:
    """Returns the canonical text of a value.

    >>> text_of(1e-8), text_of(AUTO), text_of(None)
    ('1e-08', 'auto', 'None')
    """
    if isinstance(value, Auto):
        return value.value
    return str(value) if isinstance(value, Chain) else repr(value)


def parse(text: str) -> Chain:
    """Parses an optimizer.

    Args:
        text: the expression.

    Returns:
        The calls; `str` of them is the canonical text. Names are not looked up.

    Raises:
        UserError: the text is not an expression; one line that names the position and the value.

    >>> str(parse("clip( 1.0 )|adam(b1 = .8, eps_root=auto)"))
    'clip(1.0) | adam(b1=0.8, eps_root=auto)'
    >>> parse("adam(b1=)")
    Traceback (most recent call last):
    mass_jax.errors.UserError: character 9: expected a value, found ')'
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"the expression has {len(text)} characters; shorten it to {MAX_LENGTH}")
    parser = _Parser(_tokens(text), len(text) + 1)
    chain = parser.chain(0)
    parser.expect_end()
    return chain


def _tokens(text: str) -> list[tuple[str, int]]:
    """Splits a text into marks and words, with the positions of their first characters."""
    tokens: list[tuple[str, int]] = []
    in_word = False
    for position, character in enumerate(text, 1):
        is_mark = character in _MARKS
        if in_word and not (is_mark or character.isspace()):
            tokens[-1] = (tokens[-1][0] + character, tokens[-1][1])
        elif not character.isspace():
            tokens.append((character, position))
        in_word = not (is_mark or character.isspace())
    return tokens


class _Parser:
    """Recursive descent with one token of lookahead."""

    def __init__(self, tokens: list[tuple[str, int]], end: int) -> None:
        self.tokens, self.end, self.next = tokens, end, 0

    def peek(self, ahead: int = 0) -> str:
        """Returns a token without taking it; "" at the end."""
        at = self.next + ahead
        return self.tokens[at][0] if at < len(self.tokens) else ""

    @property
    def position(self) -> int:
        """Position of the next token."""
        return self.tokens[self.next][1] if self.next < len(self.tokens) else self.end

    def take(self) -> str:
        """Returns the next token and moves on."""
        self.next += 1
        return self.tokens[self.next - 1][0]

    def expect_end(self) -> None:
        """Raises a UserError if tokens are left."""
        if self.peek():
            raise self.error("expected '|' or the end")

    def error(self, expected: str) -> UserError:
        """Returns the error for the next token."""
        found = repr(self.peek()) if self.peek() else "the end"
        return UserError(f"character {self.position}: {expected}, found {found}")

    def chain(self, depth: int) -> Chain:
        """Parses calls that are joined by vertical bars."""
        if depth > MAX_DEPTH:
            raise UserError(f"character {self.position}: calls are nested more than {MAX_DEPTH} deep")
        calls = [self.call(depth)]
        while self.peek() == "|":
            self.take()
            calls.append(self.call(depth))
        return Chain(tuple(calls))

    def call(self, depth: int) -> Call:
        """Parses a name with optional arguments."""
        position = self.position
        if not _is_name(self.peek()):
            raise self.error("expected the name of an optimizer")
        name = self.take()
        arguments: list[Argument] = []
        if self.peek() == "(":
            self.take()
            while self.peek() != ")":
                arguments.append(self.argument(depth, arguments))
                if self.peek() not in (",", ")"):
                    raise self.error("expected ',' or ')'")
                if self.peek() == ",":
                    self.take()
            self.take()
        return Call(name, tuple(arguments), position)

    def argument(self, depth: int, before: list[Argument]) -> Argument:
        """Parses one argument."""
        position, name = self.position, None
        if self.peek(1) == "=":
            if not _is_identifier(self.peek()):
                raise self.error("expected the name of an argument")
            name = self.take()
            self.take()
            if name in [argument.name for argument in before]:
                raise UserError(f"character {position}: argument {name!r} is repeated")
        elif before and before[-1].name is not None:
            raise UserError(f"character {position}: a positional argument follows {before[-1].name}=; name it")
        return Argument(name, self.value(depth), position)

    def value(self, depth: int) -> Value:
        """Parses a number, a constant or a nested chain."""
        token = self.peek()
        if token in _CONSTANTS:
            return _CONSTANTS[self.take()]
        number = _number(token)
        if number is not None:
            self.take()
            return number
        if not _is_name(token):
            raise self.error("expected a value")
        return self.chain(depth + 1)


def _number(token: str) -> int | float | None:
    """Returns the value of a finite number; None for other tokens."""
    if not token or not set(token) <= set("0123456789+-.eE"):
        return None
    with contextlib.suppress(ValueError):
        return int(token)
    with contextlib.suppress(ValueError):
        value = float(token)
        return value if math.isfinite(value) else None
    return None


def _is_identifier(token: str) -> bool:
    """Returns whether a token is a name in ASCII."""
    return token.isascii() and token.isidentifier()


def _is_name(token: str) -> bool:
    """Returns whether a token names a function of optax or of the user's own code."""
    module, colon, function = token.rpartition(":")
    if not colon:
        return token not in _CONSTANTS and all(map(_is_identifier, token.split(".")))
    return _is_identifier(function) and (module.endswith(".py") or all(map(_is_identifier, module.split("."))))


def calls(chain: Chain) -> Iterator[Call]:
    """Yields all calls of an expression, nested ones after the call that contains them.

    >>> [call.name for call in calls(parse("clip(1.0) | sgd(cosine_decay_schedule(0.2, 4))"))]
    ['clip', 'sgd', 'cosine_decay_schedule']
    """
    for call in chain.calls:
        yield call
        for argument in call.arguments:
            if isinstance(argument.value, Chain):
                yield from calls(argument.value)


def map_calls(function: Callable[[Call], Call], chain: Chain) -> Chain:
    """Replaces every call, nested ones first."""

    def of_value(value: Value) -> Value:
        return map_calls(function, value) if isinstance(value, Chain) else value

    def of_call(call: Call) -> Call:
        changed = (dataclasses.replace(each, value=of_value(each.value)) for each in call.arguments)
        return function(dataclasses.replace(call, arguments=tuple(changed)))

    return Chain(tuple(map(of_call, chain.calls)))


def is_word(text: str) -> bool:
    """Returns whether a text is a single token, so that it can be part of an expression.

    >>> is_word("/my-files/own.py:make"), is_word("/my files/own.py:make")
    (True, False)
    """
    return [token for token, _ in _tokens(text)] == [text]
