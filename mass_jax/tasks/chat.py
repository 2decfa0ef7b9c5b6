"""Conversations, and the text of them that a model continues.

A chat template is tried out once, in a process with limits of time and memory, and then rendered in this process. The
trial covers conversations like its own; for all others, the steps of loops and the length of the text are bounded.
"""

import contextlib
import functools
import pathlib
import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mass_jax.errors import UserError
from mass_jax.llama.tokenizer import adds_bos
from mass_jax.tasks import template

Message = dict[str, str]
Render = Callable[[Sequence[Message]], str]


def dialogue(turns: Sequence[tuple[str, str]], question: str) -> list[Message]:
    """Returns questions with their answers, and then a question.

    >>> [message["role"] for message in dialogue([("1 + 1?", "2")], "2 + 2?")]
    ['user', 'assistant', 'user']
    """
    messages = []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def renderer(tokenizer: Any, system: Message | None = None) -> Render:
    """Checks a tokenizer's chat template and returns the function that applies it.

    Args:
        tokenizer: of `llama.tokenizer.load`.
        system: the first message of the conversations that will be rendered, if it is a system message.

    Returns:
        `render` with the tokenizer bound.

    Raises:
        UserError: the template is unusable; names its file and the reason.

    >>> renderer(None)([{"role": "user", "content": "1 + 1?"}])
    '1 + 1?\\n\\n'
    """
    if getattr(tokenizer, "chat_template", None) is not None:
        _check(_source(tokenizer), _file(tokenizer), _tokens(tokenizer), system is not None)
    return functools.partial(render, tokenizer)


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Renders messages as the text that the model continues.

    Args:
        tokenizer: of `llama.tokenizer.load`, or None. Without a chat template, the contents stand one below another.
        messages: turns with "role" and "content"; the last is the user's.

    Returns:
        The text up to where the answer starts. A leading bos of the template is removed if encoding adds one.

    Raises:
        UserError: the template is unusable; names its file and the reason.

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


def _source(tokenizer: Any) -> str:
    """The template of conversations without tools; transformers has several as a dict."""
    source, file = tokenizer.chat_template, _file(tokenizer)
    if isinstance(source, dict):
        if "default" not in source:
            raise UserError(f"{file}: none of the chat templates {sorted(source)} is named 'default': name one so")
        source = source["default"]
    if not isinstance(source, str):
        raise UserError(f"{file}: the chat template is {reprlib.repr(source)}: give a text, or remove it")
    if not source.strip():
        raise UserError(f"{file}: the chat template is empty: remove it to have plain prompts")
    return source


def _file(tokenizer: Any) -> str:
    """The file that transformers took the template from."""
    directory = pathlib.Path(getattr(tokenizer, "name_or_path", "") or "nowhere")
    for pattern in ("chat_template.jinja", "additional_chat_templates/*.jinja", "tokenizer_config.json"):
        for path in sorted(directory.glob(pattern)):
            return str(path)
    return "the tokenizer"


def _tokens(tokenizer: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str))


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Names the file in what a template fails with."""
    try:
        yield
    except template.TemplateFailure as failure:
        raise UserError(
            f"{file}: the chat template does not render ({failure}): correct it, or remove it to have plain prompts"
        ) from None


@functools.lru_cache(maxsize=64)
def _check(source: str, file: str, tokens: tuple[tuple[str, str], ...], system: bool) -> None:
    """Renders a question and a dialogue under limits, and a longer dialogue that only has to end in time."""
    first = [{"role": "system", "content": "the rules"}] if system else []
    words = "a word and 1 + 1 " * 100
    chats = [[*first, *dialogue([("one", "two")] * turns, "the question")] for turns in (0, 1)]
    with _named(file):
        texts = template.try_out(source, chats, [*first, *dialogue([(words, words)] * 8, words)], dict(tokens))
    if not all("the question" in text for text in texts):
        raise UserError(f"{file}: the chat template leaves out the last message: correct it, or remove it")


plain: Render = functools.partial(render, None)  # for a model without a chat template
