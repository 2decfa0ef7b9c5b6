"""The model provider of Inspect."""

import asyncio
import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from mass_jax.errors import UserError, first_line
from mass_jax.harnesses.opening import open_model
from mass_jax.harnesses.options import is_workdir, parse
from mass_jax.harnesses.questions import QuestionModel, name_of
from mass_jax.harnesses.requests import Completion, Request
from mass_jax.harnesses.worker import Worker
from mass_jax.sampling.choose import Settings
from mass_jax.tasks import chat

# Settings that are not supported, with the value that has no effect.
_UNSUPPORTED = {"best_of": 1, "num_choices": 1, "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}}
_UNSUPPORTED |= {"logprobs": False, "top_logprobs": 0, "prompt_logprobs": 0, "response_schema": None}


class MassJaxAPI(ModelAPI):
    """A model of this package for Inspect, plain or adapting to each question.

    Calls wait for one thread, which answers them in batches. Without a temperature, generation is greedy.

    Args:
        model_name: workdir of `experiments.train`, "tiny", or a directory or hub id with Hugging Face files.
        base_url: must be None.
        api_key: ignored.
        config: settings of all calls.
        **model_args: see `options.Options`, without `pretrained` and `run`.

    Raises:
        PrerequisiteError: an argument is unknown or invalid; Inspect prints the message in one line.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (as in the base class)
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, config=config)
        kind = "workdir" if is_workdir(pathlib.Path(model_name)) else "pretrained"
        try:
            if base_url is not None:
                raise UserError(f"base_url={base_url} has no effect: the model runs in this process; leave it out")
            self._model = open_model(parse({kind: model_name, **model_args}))
        except UserError as error:
            raise PrerequisiteError(first_line(error)) from error
        self._calls: collections.Counter[str] = collections.Counter()
        self._worker: Worker[Request, Completion] = Worker(self._model.generate, self._model.batch)

    def max_connections(self) -> int:
        """Number of concurrent calls, by default the batch size."""
        return self._model.batch

    def close(self) -> None:
        """Ends the thread and closes the log."""
        self._worker.close()
        if isinstance(self._model, QuestionModel):
            self._model.close()

    async def count_text_tokens(self, text: str) -> int:
        """Returns the number of tokens of a text."""
        return len(self._model.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Continues a conversation, or answers a question.

        Raises:
            UserError: a setting or tool is not supported, or the messages are not one question.
        """
        if tools:
            raise UserError(f"tools are not supported, such as {tools[0].name}: use a task without tools")
        for name, neutral in _UNSUPPORTED.items():
            if getattr(config, name) not in (None, neutral):
                raise UserError(f"generation setting {name!r} is not supported; leave it out")
        request = self._request(self._text(input), config)
        self._model.check(request)  # here, because an error in the thread ends all requests of the batch
        done = await asyncio.wrap_future(self._worker.submit(request))
        message = ChatMessageAssistant(content=done.text, model=self.model_name, source="generate")
        choice = ChatCompletionChoice(message=message, stop_reason="stop" if done.finish == "stop" else "max_tokens")
        usage = ModelUsage(
            input_tokens=done.prompt_tokens,
            output_tokens=done.new_tokens,
            total_tokens=done.prompt_tokens + done.new_tokens,
        )
        return ModelOutput(
            model=self.model_name, choices=[choice], usage=usage, metadata=dict(done.details) if done.details else None
        )

    def _text(self, messages: Sequence[ChatMessage]) -> str:
        """Returns the prompt or the question that messages contain.

        Without a chat template, a single message is the prompt itself; several are joined by blank lines.
        """
        for message in messages:
            parts = () if isinstance(message.content, str) else message.content
            if message.role == "tool" or any(part.type != "text" for part in parts):
                raise UserError("only messages with text are supported: use a task without images and tools")
        if isinstance(self._model, QuestionModel):
            if [message.role for message in messages] != ["user"]:
                raise UserError("the task of the model poses the question: give one user message and no system message")
            return messages[0].text
        if len(messages) == 1 and not self._model.tokenizer.chat_template:
            return messages[0].text
        turns = [{"role": message.role, "content": message.text} for message in messages]
        return chat.render(self._model.tokenizer, turns)

    def _request(self, text: str, config: GenerateConfig) -> Request:
        """Returns the request of a call; repeated calls with the same text draw other samples."""
        settings = Settings(temperature=0.0)
        if config.temperature:
            settings = Settings(config.temperature, config.top_k or 0, 1.0 if config.top_p is None else config.top_p)
        name = f"{config.seed or 0} {name_of(text)}"
        self._calls[name] += 1
        stops = tuple(stop for stop in config.stop_seqs or () if stop)
        return Request(text, config.max_tokens, stops, settings, f"{name} {self._calls[name]}")
