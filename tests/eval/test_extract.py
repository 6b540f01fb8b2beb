from __future__ import annotations

import random
import string

import pytest

from eval.extract import Forms, extract


@pytest.mark.parametrize(
    ("completion", "gold", "strict", "flexible"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("No.", "yes", "no", "no"),
        ("Yes, this is a death notice", "no", "yes", "yes"),
        ("Notice the circle", "no", None, None),
        ("There is no circle", "no", None, None),
        ("None", "no", None, None),
        ("I looked twice. The answer is no.", "no", None, "no"),
        ("Answer: yes", "yes", None, "yes"),
        ("The answer is yes. Wait. The answer is no", "no", None, "no"),
        ("yes, but the answer is: no", "no", "yes", "no"),
        ("Red.", "red", "Red.", "Red."),
        ("The answer is red", "red", "The answer is red", "red"),
        ("The answer is", "red", "The answer is", None),
        ("", "red", None, None),
        (" ?! ", "red", None, None),
        ("an answer isolated", "red", "an answer isolated", "an answer isolated"),
        ("I think hard </think> blue", "red", "blue", "blue"),
        ("<think>red</think>blue", "red", "blue", "blue"),
        ("<think>a</think>red<think>b</think> yes", "no", "yes", "yes"),
    ],
)
def test_answers(completion: str, gold: str, strict: str | None, flexible: str | None) -> None:
    found = extract(completion, gold)
    assert (found.strict, found.flexible, found.unfinished) == (strict, flexible, False)


@pytest.mark.parametrize("completion", ["<think>the answer is yes", "<think>a</think> <think>yes"])
def test_open_reasoning_gives_nothing(completion: str) -> None:
    found = extract(completion, "yes")
    assert (found.strict, found.flexible, found.unfinished) == (None, None, True)


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        ("boxed", r"So \boxed{7}.", "7"),
        ("boxed", r"So \boxed{7}. Next question: what is", "7"),
        ("boxed", r"So \boxed{7}. Or rather \boxed{12", None),
        ("boxed", r"So \boxed{\frac{1}{2", None),
        ("answer_tag", "<answer>3+4</answer> Let me", "3+4"),
        ("answer_tag", "<answer>3+4</answer> or <answer>3", None),
        ("yes_no", "Yes, there is a snowboard in the image, lying on", "yes"),
        ("yes_no", "no", None),  # or nothing, or normal
        ("auto", "No. There", None),
        ("hash", "#### 12", None),
        ("hash", "#### 12\nQuestion:", "12"),
        ("gsm8k_strict", "#### 12", None),
        ("gsm8k_strict", "#### 12 apples", "12"),
        ("option", "The answer is B", None),
        ("option", "The answer is B because the", "B"),
        ("last_number", "That makes 12 apples and", None),
        ("last_number", r"\boxed{12 apples} and", "12"),
        ("cue", "The answer is red, since", None),
        ("whole", "red", None),
        ("grid", "1 2 3\n4 5 6\n7 8", None),
        ("grid", "<answer>1 2\n3 4</answer> This", "1 2\n3 4"),
        ("expression", "3 + 4", None),
        ("expression", "<answer>3 + 4</answer> =", "3 + 4"),
    ],
)
def test_an_answer_before_the_token_limit_counts_where_it_is_complete(form: str, text: str, answer: str | None) -> None:
    found = extract(text, "12", Forms(form, form), cut=True)
    assert (found.strict, found.flexible, found.unfinished) == (answer, answer, answer is None)


def test_noise_is_never_guessed() -> None:
    generator = random.Random(0)
    letters = string.ascii_lowercase.replace("y", "").replace("n", "")
    for _ in range(2000):
        assert extract("".join(generator.choices(letters + " .,", k=12)), "yes").strict is None
