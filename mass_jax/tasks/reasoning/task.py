"""Families of reasoning-gym as a `Task`: prompts, a parser, and the package's own scoring."""

from collections.abc import Sequence
from concurrent.futures import Future

from mass_jax.tasks import chat, example_form
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.reasoning.bank import one_line, squashed
from mass_jax.tasks.reasoning.scorer import Scorer

SYSTEM = {"role": "system", "content": "Give only the final answer."}
START = "Answer: "
ASK = "Problem: {}\nSimilar problem:"
INSTRUCT = (
    "Write one new problem of the same kind with other numbers or words, then its answer, exactly in the form '{}'."
)
END = "\n"  # ends every completion
MAX_CHARS = 1200  # longer examples are rejected without parsing


class ReasoningTask:
    """Prompts, parser and scoring of reasoning-gym problems.

    Args:
        scorer: Scores answers; the caller closes it.
        shown: Pairs of a target problem and an example of the same family, shown in every generator prompt.
        solved: Solved problems in every solver prompt.
        render: Function from messages to prompt text, such as `chat.renderer(tokenizer, SYSTEM)`.
        form: Form of written examples, `example_form.QUESTION_FIRST` or `ANSWER_FIRST`.
        control_tokens: Texts that an example may not contain, such as the model's special tokens.
    """

    def __init__(
        self,
        scorer: Scorer,
        shown: Sequence[tuple[str, Example]] = (),
        solved: Sequence[Example] = (),
        render: chat.Render = chat.plain,
        form: str = example_form.QUESTION_FIRST,
        control_tokens: Sequence[str] = (),
    ):
        self._scorer = scorer
        self._shown = tuple(shown)
        self._solved = tuple(solved)
        self._render = render
        self._form = form
        self._control_tokens = tuple(control_tokens)

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """Returns the solved problems, further shots and the problem as a conversation, and the start of the answer."""
        solved = [(shot.problem, START + shot.solution) for shot in (*self._solved, *shots)]
        return self._render([SYSTEM, *chat.dialogue(solved, problem)]) + START

    def generator_prompt(self, problem: str) -> str:
        """Returns the problem, preceded by other problems with a similar problem each."""
        shown = "".join(f"{ASK.format(target)} {self._written(example)}{END}" for target, example in self._shown)
        return shown + ASK.format(problem)

    def instructed_prompt(self, problem: str) -> str:
        """Returns the instruction and the problem as a conversation, after the generator prompt's other problems."""
        instruction = {"role": "system", "content": INSTRUCT.format(self._form_text())}
        turns = [(target, self._written(example)) for target, example in self._shown]
        return self._render([instruction, *chat.dialogue(turns, problem)])

    def scorer_text(self, problem: str, example: Example) -> str:
        """Returns the target problem and the example in the form of the generator prompt."""
        return f"{ASK.format(problem)} {self._written(example)}"

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Parses an example in the task's form; rejects copies of the target problem. Never raises."""
        line = text.strip()
        if len(line) > MAX_CHARS or not line.isprintable() or any(token in line for token in self._control_tokens):
            return Rejected("not one line of plain text")
        found = example_form.read(line, self._form)
        if found is None:
            return Rejected(f"not of the form '{self._form_text()}'")
        example, target = Example(one_line(found.problem), found.solution), squashed(problem)
        written = squashed(example.problem)
        if not written:
            return Rejected("has an empty problem")
        if _contains(target, written) or _contains(written, target):
            return Rejected("copies the target problem")
        return example

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Scores responses; only the package's full score counts as correct."""
        futures = [self.submit(problem, response) for problem, response in zip(problems, responses, strict=True)]
        return [future.result() for future in futures]

    def submit(self, problem: Problem, response: str) -> "Future[Verdict]":
        """Starts scoring one response and returns immediately."""
        return self._scorer.submit(problem, answer_of(response))

    def final_answer(self, response: str) -> str | None:
        """Returns the answer in a response, or None if it is empty."""
        return answer_of(response) or None

    def useful(self, problem: Problem, example: Example) -> bool | None:
        """Returns None: the package cannot solve a problem that it did not generate."""
        return None

    def _form_text(self) -> str:
        return self._written(Example("problem", "answer"))

    def _written(self, example: Example) -> str:
        return example_form.write(example, self._form)


def answer_of(response: str) -> str:
    """Returns a response without surrounding white space and a repeated "Answer:".

    Example:
        >>> answer_of(" Answer: 12")
        '12'
    """
    return response.strip().removeprefix(START.strip()).strip()


def _contains(text: str, part: str) -> bool:
    """Returns whether a text contains another one, whose first and last numbers do not go on in it.

    >>> _contains("gcdof12and36", "gcdof12and3"), _contains("gcdof12and36:gcdof12and3", "gcdof12and3")
    (False, True)
    """
    start = text.find(part)
    while start >= 0:
        before, after = text[:start][-1:], text[start + len(part) :][:1]
        if not (before.isdigit() and part[0].isdigit()) and not (after.isdigit() and part[-1].isdigit()):
            return True
        start = text.find(part, start + 1)
    return False
