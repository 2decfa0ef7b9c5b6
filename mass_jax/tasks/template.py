"""Sandboxed, deterministic rendering of chat templates, which are untrusted code.

The sandbox provides the names that transformers gives to templates of the Hugging Face hub, without a clock or a source
of randomness. `try_out` renders in a subprocess with time and memory limits. This module imports only jinja2, so that
the subprocess starts quickly.
"""

import contextlib
import contextvars
import datetime
import functools
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

Message = Mapping[str, str]
NOW = datetime.datetime(2024, 7, 26)  # default date of Llama 3's templates
MAX_CHARS = 1_000_000
MAX_STEPS = 1_000_000  # total over all loops
SECONDS, MEMORY_BYTES = 3, 1 << 30
_WALL_SECONDS = 120  # generous, since a loaded machine may not schedule the subprocess
_steps: contextvars.ContextVar[Iterator[int]] = contextvars.ContextVar("steps")


class TemplateFailure(ValueError):
    """A template that does not parse, raises, or exceeds a limit."""


class _Exceeded(TemplateFailure):
    """A template that exceeds a limit."""


class _Generation(jinja2.ext.Extension):
    """The block {% generation %}, which marks assistant tokens; rendered as its content."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        """Parses the block as its body."""
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class _Namespace(jinja2.utils.Namespace):
    """A namespace without private attributes."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no attribute {name!r}")
        super().__setitem__(name, value)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return NOW.strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _metered(items: Iterable[Any]) -> Iterator[Any]:
    """Yields the items of a template loop; all loops of one rendering share a budget of steps."""
    steps = _steps.get()
    for item in items:
        if next(steps) >= MAX_STEPS:
            raise _Exceeded(f"its loops have more than {MAX_STEPS} steps")
        yield item


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    del environment.globals["lipsum"], environment.filters["random"]
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "dict": _dict,
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    environment.filters["_metered"] = _metered
    tree = environment.parse(source)
    for loop in list(tree.find_all(jinja2.nodes.For)):
        if loop.recursive:
            raise TemplateFailure("it has a recursive loop")
        loop.iter = jinja2.nodes.Filter(loop.iter, "_metered", [], [], None, None, lineno=loop.lineno)
    return environment.from_string(tree)


def render(source: str, messages: Sequence[Message], tokens: Mapping[str, Any]) -> str:
    """Renders a conversation up to the start of the model's answer.

    Args:
        source: Template source.
        messages: Turns with "role" and "content".
        tokens: Special tokens by name, such as "bos_token".

    Returns:
        The rendered text.

    Raises:
        TemplateFailure: If the template does not parse, raises, loops for more than `MAX_STEPS` steps, or writes more
            than `MAX_CHARS` characters.

    Example:
        >>> render("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
        ...        [{"role": "user", "content": "1 + 1?"}], {"eos_token": "</s>"})
        '1 + 1?</s>'
    """
    given = {
        **tokens,
        "messages": [dict(message) for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "enable_thinking": False,  # templates of Qwen3 and SmolLM3; thoughts would not fit the limits on answers
        "date_string": NOW.strftime("%d %b %Y"),
    }
    pieces, count = [], 0
    _steps.set(itertools.count())
    try:
        for piece in _compile(source).generate(given):
            pieces.append(piece)
            count += len(piece)
            if count > MAX_CHARS:
                raise _Exceeded(f"it writes more than {MAX_CHARS} characters")
    except TemplateFailure:
        raise
    except Exception as error:  # a template is a program and may raise anything
        reason = " ".join(str(error).split())[:200]
        raise TemplateFailure(f"{type(error).__name__}: {reason}") from None
    return "".join(pieces)


def try_out(
    source: str, conversations: Sequence[Sequence[Message]], long: Sequence[Message], tokens: Mapping[str, Any]
) -> list[str]:
    """Renders conversations in a subprocess that is limited to 3 s of CPU time and 1 GiB of memory.

    Args:
        source: Template source.
        conversations: Conversations that must all render.
        long: A conversation that may fail to render, but must not exceed the limits.
        tokens: Special tokens by name.

    Returns:
        The texts of `conversations`.

    Raises:
        TemplateFailure: If the template fails or exceeds the limits.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    chats = [[dict(message) for message in messages] for messages in (*conversations, long)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mass_jax.tasks.template"],
            input=json.dumps({"source": source, "chats": chats, "tokens": dict(tokens)}).encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TemplateFailure(f"it runs longer than {SECONDS} s") from None
    if done.returncode < 0:
        raise TemplateFailure(f"it runs longer than {SECONDS} s or needs more than {MEMORY_BYTES >> 30} GiB")
    if done.returncode:
        raise RuntimeError(f"the subprocess for chat templates failed: {done.stderr.decode(errors='replace')}")
    *replies, last = json.loads(done.stdout)
    for reply in (*replies, last) if last.get("exceeded") else replies:
        if "failure" in reply:
            raise TemplateFailure(reply["failure"])
    return [reply["text"] for reply in replies]


def _limit() -> None:
    """Applies the resource limits to this process."""
    for name, value in (("RLIMIT_CPU", SECONDS), ("RLIMIT_AS", MEMORY_BYTES), ("RLIMIT_CORE", 0)):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not available on every system
            resource.setrlimit(getattr(resource, name), (value, value))


def main() -> None:
    """Runs the subprocess of `try_out`: a JSON request on stdin, texts or failures as JSON on stdout."""
    task = json.load(sys.stdin)
    _limit()
    replies: list[dict[str, Any]] = []
    for messages in task["chats"]:
        try:
            replies.append({"text": render(task["source"], messages, task["tokens"])})
        except TemplateFailure as failure:
            replies.append({"failure": str(failure), "exceeded": isinstance(failure, _Exceeded)})
    json.dump(replies, sys.stdout)


if __name__ == "__main__":
    main()
