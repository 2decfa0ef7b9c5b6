"""Chat messages and their rendering as prompt text.

A chat template is first tried in a subprocess with time and memory limits, then rendered in this process. The trial
covers typical conversations only, so every later rendering also bounds loop steps and text length.
"""

import contextlib
import functools
import pathlib
import reprlib
from collections.abc import Callable, Iterator, Sequence

from mass_jax.aliases import Tokenizer
from mass_jax.errors import UserError
from mass_jax.llama.tokenizer import adds_bos
from mass_jax.tasks import template

Message = dict[str, str]
"""One turn of a conversation, with the keys "role" and "content"."""

Render = Callable[[Sequence[Message]], str]
"""Function from messages to prompt text."""


def dialogue(turns: Sequence[tuple[str, str]], question: str) -> list[Message]:
    """Builds a conversation that ends in a question.

    Args:
        turns: Earlier (question, answer) pairs.
        question: Content of the last user message.

    Returns:
        Messages with alternating roles.

    Example:
        >>> [message["role"] for message in dialogue([("1 + 1?", "2")], "2 + 2?")]
        ['user', 'assistant', 'user']
    """
    messages = []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def renderer(tokenizer: Tokenizer, system: Message | None = None) -> Render:
    """Checks a tokenizer's chat template and returns the function that applies it.

    Args:
        tokenizer: Tokenizer from `llama.tokenizer.load`.
        system: System message that will start the rendered conversations, if any.

    Returns:
        `render` bound to the tokenizer.

    Raises:
        UserError: If the template is unusable; the message names its file and the reason.

    Example:
        >>> renderer(None)([{"role": "user", "content": "1 + 1?"}])
        '1 + 1?\\n\\n'
    """
    if getattr(tokenizer, "chat_template", None) is not None:
        _check(_source(tokenizer), _file(tokenizer), _tokens(tokenizer), system is not None)
    return functools.partial(render, tokenizer)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """Renders messages as prompt text.

    Args:
        tokenizer: Tokenizer from `llama.tokenizer.load`, or None. Without a chat template, the message contents are
            joined by blank lines.
        messages: Turns with "role" and "content"; the last one is from the user.

    Returns:
        The text up to the start of the answer. A leading bos token of the template is removed if encoding adds one.

    Raises:
        UserError: If the template is unusable; the message names its file and the reason.

    Example:
        >>> render(None, [{"role": "user", "content": "1 + 1?"}])
        '1 + 1?\\n\\n'
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return "".join(message["content"] + "\n\n" for message in messages)
    source, file, tokens = _source(tokenizer), _file(tokenizer), _tokens(tokenizer)
    _check(source, file, tokens, messages[0]["role"] == "system")
    with _named(file):
        text = template.render(source, messages, dict(tokens))
    bos = tokenizer.bos_token or ""
    return text.lstrip().removeprefix(bos) if _starts_with(text, bos) and adds_bos(tokenizer) else text


def _starts_with(text: str, bos: str) -> bool:
    return bool(bos) and text.lstrip().startswith(bos)


def _source(tokenizer: Tokenizer) -> str:
    """Returns the default template; a tokenizer with several templates has a dict."""
    source, file = tokenizer.chat_template, _file(tokenizer)
    if isinstance(source, dict):
        if "default" not in source:
            raise UserError(f"{file}: none of the chat templates {sorted(source)} is named 'default'; rename one")
        source = source["default"]
    if not isinstance(source, str):
        raise UserError(f"{file}: the chat template is {reprlib.repr(source)}, not a string; correct it, or remove it")
    if not source.strip():
        raise UserError(f"{file}: the chat template is empty; remove it to use plain prompts")
    return source


def _file(tokenizer: Tokenizer) -> str:
    """Returns the file from which transformers read the template."""
    directory = pathlib.Path(getattr(tokenizer, "name_or_path", "") or "nowhere")
    for pattern in ("chat_template.jinja", "additional_chat_templates/*.jinja", "tokenizer_config.json"):
        for path in sorted(directory.glob(pattern)):
            return str(path)
    return "the tokenizer"


def _tokens(tokenizer: Tokenizer) -> tuple[tuple[str, str], ...]:
    return tuple((name, token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str))


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Converts template failures to errors that name the file."""
    try:
        yield
    except template.TemplateFailure as failure:
        raise UserError(
            f"{file}: the chat template does not render ({failure}); correct it, or remove it to use plain prompts"
        ) from None


@functools.lru_cache(maxsize=64)
def _check(source: str, file: str, tokens: tuple[tuple[str, str], ...], system: bool) -> None:
    """Checks that a question and a dialogue render, and that a long dialogue stays within the limits."""
    first = [{"role": "system", "content": "the rules"}] if system else []
    words = "a word and 1 + 1 " * 100
    chats = [[*first, *dialogue([("one", "two")] * turns, "the question")] for turns in (0, 1)]
    with _named(file):
        texts = template.try_out(source, chats, [*first, *dialogue([(words, words)] * 8, words)], dict(tokens))
    if not all("the question" in text for text in texts):
        raise UserError(f"{file}: the chat template omits the last message; correct it, or remove it")


plain: Render = functools.partial(render, None)
"""Renders messages for a model without a chat template."""
