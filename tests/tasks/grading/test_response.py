"""Tests of the extraction of final answers, with forms that various models use."""

import pytest

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.boxes import find_boxes
from mass_jax.tasks.math import final_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        # one of each form
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"so \fbox{7}", "7"),
        (r"so $\boxed 7$", "7"),
        ("24 + 48 = 72\n#### 72", "72"),
        ("#### 1\n#### 2\nthanks", "2"),
        ("Well.\nThe answer is: **3.5**.\nBye.", "3.5"),
        ("The final answer is $x^2$", "$x^2$"),
        ("12", "12"),
        # thinking
        (r"<think>Try \boxed{9}.</think>So it is \boxed{12}.", "12"),
        (r"Let me see, \boxed{9}?</think>The answer is 12.", "12"),
        ("<THINK>a</THINK>\n<think>b</think>\n12", "12"),
        ("<think>a <think>b</think> the answer is 9 </think>\nThe answer is 12", "12"),
        (r"\boxed{12}<think>check</think>", "12"),
        ("<thinking>the answer is 3</thinking>\n\n#### 12", "12"),
        # answer tags
        (r"<answer> 12 </answer>", "12"),
        ("<answer>9</answer> Again: <answer>12</answer>", "12"),
        ("<answer><answer>12</answer></answer>", "12"),
        (r"I write <answer></answer> tags. \boxed{9} <answer>The answer is $12$.</answer>", "$12$"),
        (r"\boxed{9} is the first part. <Answer>12</Answer>", "12"),
        (r"<answer>12</answer> so \boxed{12}", "12"),
        # boxes
        (r"Put it in \boxed{}. Then \boxed{12}.", "12"),
        (r"Put it in \boxed{}. The answer is 12.", "12"),
        (r"I will end with \boxed{\text{answer}}. \boxed{12}", "12"),
        (r"\boxed{8} and then we double it: \boxed{16}", "16"),
        (r"$a=\boxed{5}$. So $b$ is $\boxed{6}$", "6"),
        (r"$a=\boxed{5}$ and therefore $b=\boxed{6}$", "6"),
        (r"\boxed{11}; no: \boxed{12}", "12"),
        (r"\boxed{11}, so: \boxed{12}", "12"),
        (r"It is 2 or \boxed{3.5}. We add 1 and get \boxed{4.5}.", "4.5"),
        (r"It is \boxed{ 12 }, I hope the answer is correct.", "12"),
        (r"\boxed{12}. The answer is 12 apples.", "12"),
        (r"\boxed{12} is the correct answer.", "12"),
        (r"$4!=\boxed{24}$", "24"),
        (r"as \boxed{x = \{1\}}", r"x = \{1\}"),
        (r"\\boxed{7}", "7"),
        (r"so \boxed 3.5.", "3.5"),
        (r"\(\boxed 7\)", "7"),
        # several boxes that form one answer
        (r"$\boxed{2}$ or $\boxed{3}$", "2, 3"),
        (r"\boxed{-1}, \boxed{0}, and \boxed{4}", "-1, 0, 4"),
        (r"$$x = \boxed{2} \quad\text{or}\quad x = \boxed{3}$$", "2, 3"),
        (r"First \boxed{9}. Thus $x=\boxed{2}, y=\boxed{3}$.", "x=2, y=3"),
        (r"\boxed{5} and \boxed{5}", "5"),
        ("$\\boxed{5}$\n\n$\\boxed{5}$", "5"),
        # marked lines
        ("#### 7 cars", "7 cars"),
        ("#### Step 1: add\n3 + 4 = 7\n#### Final Answer\n7", "7"),
        ("#### Solution\nThe answer is 7.", "7"),
        ("#### 1,200.", "1,200"),
        ("#### Monday", "Monday"),
        # announcements
        ("Final Answer: The final answer is $x+1$. I hope it is correct.", "$x+1$"),
        ("Final answer: 12", "12"),
        ("**Answer:** 12", "12"),
        ("**Final Answer**: 12\n\nThanks!", "12"),
        ("# Answer\n\n12", "12"),
        ("**Answer**\n12", "12"),
        ("The answer is:\n\n$$\\frac{1}{2}$$", r"$$\frac{1}{2}$$"),
        ("The answer is\n\\[\n12\n\\]\nas required.", "\\[ 12 \\]"),
        ("The answer is 5? No, the answer is 12.", "12"),
        ("Is the answer 5? No, the answer is 12.", "12"),
        ("The answer is not 5. The answer is 12.", "12"),
        ("The answer is 12. I hope the answer is correct.", "12"),
        ("The answer is 12. If the answer is 13, then we have erred.", "12"),
        ("The answer is 12. A common wrong answer is 24.", "12"),
        ("The answer is 12. To check the answer: 12 + 13 = 25.", "12"),
        ("The answer is 12.\n\nNote that the answer is in meters.", "12"),
        ("The answer is 12 (since 3 + 9 = 12).", "12"),
        ("The answer is 12, which is even.", "12"),
        ("The answer is 12, not 13.", "12"),
        ("The answer is therefore 12.", "12"),
        ("The answer is $12.$ Done.", "$12.$"),
        ("the answer to this problem is 12.", "12"),
        ("The answer is 12.\nThe result is a whole number.", "12"),
        ("The result is 12.\nThanks.", "12"),
        ("Answer: x = 12", "x = 12"),
        ("The answer is Monday.", "Monday"),
        ("The answer is 1.5 kg. Bye.", "1.5 kg"),
        ("ANSWER: 12", "12"),
        ("The answers are 3 and 4.", "3 and 4"),
        ("My answer = 12\n\nDone", "12"),
        # single lines
        ("  12\n", "12"),
        ("$12$.", "$12$"),
        ("`12`", "12"),
        ("**12**", "12"),
        ("2**3", "2**3"),
        ("x = 12", "x = 12"),
    ],
)
def test_final_answer_extracts_form(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        # truncated
        r"<think>\boxed{12}",
        r"<think>a</think><think>\boxed{12}",
        r"The answer is 12. <think>or is it",
        "<answer>12",
        "<answer>12</answer> and <answer>13",
        r"\boxed{12} and \boxed{1",
        r"so the final answer is \boxed",
        "The answer is 12. Final answer:",
        "The answer is $$12",
        # denied or retracted
        "The answer is not 12.",
        "The answer is 12. No, the answer is not 12.",
        "I don't think the answer is 12.",
        r"It is not \boxed{12}.",
        r"\boxed{11}, not \boxed{12}",
        r"The answer isn't $\boxed{12}$",
        r"\boxed{12} is wrong.",
        r"\boxed{12}. Wait, that is the radius.",
        "The answer is 12. Hmm, wait, I forgot a term.",
        "The answer is 12, which is wrong.",
        "The answer is 12. This is incorrect.",
        "The answer is 12. Or rather 13.",
        "<answer>12</answer> No, that's wrong.",
        # ambiguous
        "The answer is 12?",
        "The answer is 12... or rather 13.",
        "The answer is between 12 and 13.",
        "Could the answer be 12?",
        "If the answer is 12, then it is even.",
        r"\boxed{13} \boxed{12}",
        r"\boxed{13} when $n$ is even, or \boxed{12} when it is odd",
        r"We see \boxed{13} cats and \boxed{12} dogs.",
        r"(a) \boxed{13} (b) \boxed{12}",
        r"\boxed{13}; b. $y = \boxed{12}$",
        r"\boxed{12}. So the answer is 13.",
        r"<answer>12</answer> so \boxed{13}",
        "#### 12\nThe answer is 13.",
        "Answer:\nLet x = 12.\nThen y = 13.",
        "Answer: We know that 12 = 12.",
        "Tom has 12 apples and Ann has 9",
        "1. We add 2 and 3 to get 5",
        "First 12\nthen 13",
        "Write <answer></answer>.\nThen stop.",
        "",
        " \n ",
    ],
)
def test_verifier_rejects_doubtful_answers(response, verifier):
    assert verifier.submit("12", response).result() is Verdict.UNPARSABLE


@pytest.mark.parametrize(
    "response",
    ["a\nb", r"cut off: \boxed{\frac{1}{2}", r"\boxed{1} or \boxed{2", "x" * 200_000, "1\n2\n3"],
    ids=["two lines", "truncated box", "truncated second box", "too long", "three lines"],
)
def test_final_answer_rejects_missing_answer(response, verifier):
    with pytest.raises(Unreadable):
        final_answer(response)
    assert verifier.verify(["1"], [response]) == [Verdict.UNPARSABLE]


@pytest.mark.parametrize("response", [r"\boxed{}", "<answer></answer>", "Answer:", "####", "...", "?"])
def test_verifier_rejects_empty_answers(response, verifier):
    assert verifier.submit("12", response).result() is not Verdict.RIGHT


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("2, 3", r"$x=\boxed{2}$ or $x=\boxed{3}$"),
        ("(2,3)", r"$x=\boxed{2}$ and $y=\boxed{3}$"),
        ("2, 3", r"$x=\boxed{3}$ and $y=\boxed{2}$"),
    ],
)
def test_verifier_joins_boxes(gold, response, verifier):
    assert verifier.submit(gold, response).result() is Verdict.RIGHT


def test_verifier_orders_named_boxes(verifier):
    assert verifier.submit("(2,3)", r"$x=\boxed{3}$ and $y=\boxed{2}$").result() is Verdict.WRONG


def test_final_answer_replaces_lone_surrogates():
    assert "\ud800" not in final_answer("\\boxed{3\ud800}")


def test_find_boxes_returns_outermost():
    text = r"\boxed{x = \boxed{2}} \fbox{\{3\}} \boxedx{4}"
    assert [box.content for box in find_boxes(text)] == [r"x = \boxed{2}", r"\{3\}"]
    assert [text[box.start : box.end] for box in find_boxes(text)] == [r"\boxed{x = \boxed{2}}", r"\fbox{\{3\}}"]


def test_find_boxes_rejects_truncated_box():
    with pytest.raises(Unreadable, match="box cut off"):
        find_boxes(r"\boxed{\boxed{2}")


@pytest.mark.parametrize(
    "response",
    [
        r"$x = -\boxed{8}$",
        r"$x = - \boxed{8}$",
        r"$3\cdot\boxed{8}$",
        r"$\frac{1}{\boxed{8}}$",
        r"$\sqrt[3]{\boxed{8}}$",
        r"$2^{\boxed{8}}$",
        r"$\boxed{8}^3$",
        r"$\boxed{8}!$",
        r"$\boxed{8} + 1$",
        r"\boxed{8}\times 10^6",
        r"$\boxed{8}$ billion dollars",
        r"$\boxed{8}\text{ hundredths}$",
        r"\boxed{8}k",
        r"Could it be \boxed{8}?",
        r"Suppose that the answer is \boxed{8}, for contradiction.",
        r"\boxed{8}. On second thought, there are ten.",
        "The answer is 8. No, wait: there are ten.",
    ],
)
def test_box_inside_something_larger_is_no_answer(response):
    with pytest.raises(Unreadable):
        final_answer(response)


@pytest.mark.parametrize(
    "response",
    [
        r"- \boxed{8}",
        r"The answer - \boxed{8} - is even.",
        r"The answer is \boxed{8}!",
        r"$x \ge \boxed{8}$",
        r"$\boxed{8}\text{ cm}^2$",
        r"$\boxed{8}^\circ$",
        r"**\boxed{8}**",
        r"$3 + 5 = \boxed{8}$ times.",
        r"$\boxed{8}$ m/s",
        "$\\boxed{8}$\n- 3 boys and 5 girls",
        r"$\frac{16}{2} = \boxed{8}$",
        r"\underline{\boxed{8}}",
    ],
)
def test_box_with_units_and_prose_around_it_is_the_answer(response):
    assert final_answer(response) == "8"
