"""Conversations, and how they become the text that a model continues."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

Message = dict[str, str]
Render = Callable[[Sequence[Message]], str]
DATE = "26 Jul 2024"  # Llama 3's templates write a date, by themselves that of the day: a replay would differ tomorrow


def dialogue(turns: Sequence[tuple[str, str]], question: str) -> list[Message]:
    """Questions with their answers, and then a question.

    >>> [message["role"] for message in dialogue([("1 + 1?", "2")], "2 + 2?")]
    ['user', 'assistant', 'user']
    """
    messages = []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Messages as the text that the model continues: by the tokenizer's chat template, or plainly without one.

    Args:
        tokenizer: of `transformers`, or None.
        messages: turns with "role" and "content"; the last is the user's.

    Returns:
        Text up to where the answer starts. A leading bos of the template is taken off, because encoding adds it.

    >>> render(None, [{"role": "user", "content": "1 + 1?"}])
    '1 + 1?\\n\\n'
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return "".join(message["content"] + "\n\n" for message in messages)
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, date_string=DATE)
    return text.removeprefix(tokenizer.bos_token or "") if _adds_bos(tokenizer) else text


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


plain: Render = functools.partial(render, None)  # for a model without a chat template
