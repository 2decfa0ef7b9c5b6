"""The model class of lm-evaluation-harness."""

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mass_jax.errors import UserError
from mass_jax.harnesses.opening import open_model
from mass_jax.harnesses.options import parse
from mass_jax.harnesses.plain import PlainModel
from mass_jax.harnesses.questions import QuestionModel
from mass_jax.harnesses.requests import Request
from mass_jax.llama.tokenizer import encode
from mass_jax.sampling.choose import Settings
from mass_jax.tasks import chat

MAX_GEN_TOKS = 256  # as in other models of the harness
_SETTINGS = ("top_k", "top_p", "min_p")
_IGNORED = ("do_sample", "temperature", "until", "max_gen_toks")


@register_model("mass_jax")
class MassJaxLM(TemplateLM):
    """A model of this package for lm-evaluation-harness, plain or adapting to each question.

    Args:
        batch_size: texts per batch, or "auto".
        max_batch_size: ignored, since batches have one size.
        device: ignored, since JAX chooses it; lm_eval passes "cuda:0" by default.
        **arguments: see `options.Options`.

    Raises:
        UserError: an argument is unknown or invalid.
    """

    def __init__(
        self, batch_size: Any = None, max_batch_size: Any = None, device: str | None = None, **arguments: Any
    ) -> None:
        super().__init__()
        self.options = parse({**arguments, "batch_size": batch_size})
        self.model = open_model(self.options)
        self.tokenizer = self.model.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        if self.tokenizer.eos_token_id is not None:
            return self.tokenizer.eos_token_id
        return self._plain.stop_tokens[0]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context."""
        return self.eot_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id

    @property
    def max_length(self) -> int:
        """Positions of a text."""
        return self._plain.max_length

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, by which the harness caches requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Encodes a text, by default with the bos token if the tokenizer adds one."""
        if add_special_tokens is False:
            return self.tokenizer(string, add_special_tokens=False)["input_ids"]
        return encode(self.tokenizer, string)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Renders a conversation by the tokenizer's chat template, within limits on time and length.

        Raises:
            UserError: the template is missing or unusable, texts are questions, or the reply is given in part.
        """
        if isinstance(self.model, QuestionModel):
            raise UserError("the task of the model renders questions: leave out --apply_chat_template")
        if not add_generation_prompt:
            raise UserError("replies that begin with a given text are not supported: leave out gen_prefix")
        if not self.tokenizer.chat_template:
            raise UserError(f"{self.tokenizer_name} has no chat template: leave out --apply_chat_template")
        return chat.render(self.tokenizer, chat_history)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Scores continuations of contexts, or of questions."""
        if isinstance(self.model, PlainModel):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        pairs = [request.args for request in requests]
        found: dict[int, tuple[float, bool]] = {}
        for i, score in self.model.score(pairs, self._split):
            found[i] = (score.logprob, score.greedy)
            self.cache_hook.add_partial("loglikelihood", pairs[i], found[i])
        return [found[i] for i in range(len(pairs))]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Scores whole texts, in windows of at most `max_length` tokens.

        Raises:
            UserError: texts are questions.
        """
        if isinstance(self.model, QuestionModel):
            raise UserError("a whole text is not a question: give adapt=false and questions=false")
        windows = [list(self._windows(request.args[0])) for request in requests]
        scores = iter(self.model.score([row for rows in windows for row in rows]))
        totals = [sum(next(scores).logprob for _ in rows) for rows in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continues contexts, or answers questions, up to the first of the strings `until`."""
        asked = [_request(str(i), *request.args) for i, request in enumerate(requests)]
        texts = [completion.text for completion in self.model.generate(asked)]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the results say of the model: its label, and the service's identity and decisions."""
        info: dict[str, Any] = {"model_label": self.model.label, "adapt": self.options.adapt}
        if isinstance(self.model, QuestionModel):
            info |= {"identity": dict(self.model.service.identity), "decisions": dict(self.model.decisions)}
        return info

    @property
    def _plain(self) -> PlainModel:
        return self.model if isinstance(self.model, PlainModel) else self.model.plain

    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        scores = self._plain.score([(context, continuation) for _, context, continuation in requests])
        found = [(score.logprob, score.greedy) for score in scores]
        for (pair, *_), one in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", pair, one)
        return found

    def _split(self, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        return self._encode_pair(prompt, continuation)

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """Yields windows of a text, each with the tokens before those that it predicts."""
        tokens = self.tok_encode(text)
        pairs = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
        return map(make_disjoint_window, pairs)


def _request(name: str, text: str, given: dict[str, Any]) -> Request:
    """Reads a generation request.

    Raises:
        UserError: a setting is unknown.
    """
    settings = normalize_gen_kwargs(given, MAX_GEN_TOKS)
    if unknown := settings.keys() - {*_SETTINGS, *_IGNORED}:
        raise UserError(f"generation setting {min(unknown)!r} is not supported; leave it out")
    sampled = settings["do_sample"]
    more = {name: settings[name] for name in _SETTINGS if sampled and name in settings}
    return Request(
        text,
        settings["max_gen_toks"],
        tuple(stop for stop in settings["until"] if stop),
        Settings(temperature=float(given.get("temperature", 1.0)) if sampled else 0.0, **more),
        name,
    )
