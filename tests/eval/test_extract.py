from __future__ import annotations

import random
import string

import pytest

from eval.extract import extract


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


def test_noise_is_never_guessed() -> None:
    generator = random.Random(0)
    letters = string.ascii_lowercase.replace("y", "").replace("n", "")
    for _ in range(2000):
        assert extract("".join(generator.choices(letters + " .,", k=12)), "yes").strict is None
