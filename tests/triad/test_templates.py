"""What is written is read back, or refused with a reason that is counted."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfrefine.triad.templates import (
    ANSWER_LABEL,
    DROP_REASONS,
    QUESTION_LABEL,
    Prompts,
    parse_pair,
    parse_question,
    render_pair,
    render_question,
)

PIECES = st.sampled_from(
    [QUESTION_LABEL, ANSWER_LABEL, "Answer", ":", "\n", " ", "🦊", "[0.1, 0.2, 0.3, 0.4]", "<image>"]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=6).map("".join))


@given(TEXTS, TEXTS)
@example("what does `Answer:` mean?", "a label")
@example("what is\nwritten here?", "line one\nline two")
@example("how does 🦊 feel?", "😀👩‍👩‍👧")
@example("what is in [0.10, 0.20, 0.30, 0.40]?", "[0.50, 0.50, 0.90, 0.90]")
@example("Answer", "swer: x")
def test_a_rendered_pair_is_read_back_or_refused_with_a_known_reason(question: str, answer: str) -> None:
    parsed = parse_pair(render_pair(question, answer))
    if isinstance(parsed, str):
        assert parsed in DROP_REASONS
        labels = (QUESTION_LABEL, ANSWER_LABEL)
        guilty = {
            "label_twice": any(label in text for label in labels for text in (question, answer)),
            "empty": not question.strip() or not answer.strip(),
            "question_is_answer": question.strip().casefold() == answer.strip().casefold(),
            "image_token": "<" in question + answer,
        }
        assert guilty[parsed]
    else:
        # White space around a part belongs to the template, not to the part.
        assert parsed == (question.strip(), answer.strip())


@given(TEXTS)
def test_a_rendered_question_is_read_back_or_refused(question: str) -> None:
    parsed = parse_question(render_question(question))
    refused = QUESTION_LABEL in question or not question.strip()
    assert parsed == (None if refused else question.strip())


@given(st.text())
def test_any_text_at_all_is_a_pair_or_a_known_reason(text: str) -> None:
    parsed = parse_pair(text)
    assert parsed in DROP_REASONS if isinstance(parsed, str) else all(parsed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_label"),
        ("a cat", "no_label"),
        ("Instruction: what? cat", "no_label"),
        ("what? Answer: cat", "no_label"),
        ("Answer: cat Instruction: what?", "no_label"),
        ("Sure! Instruction: what? Answer: cat", "no_label"),
        ("Instruction: Instruction: what? Answer: cat", "label_twice"),
        ("Instruction: what? Answer: cat Answer: dog", "label_twice"),
        ("Instruction: Answer: cat", "empty"),
        ("Instruction: what? Answer:", "empty"),
        ("Instruction: Cat Answer: cat", "question_is_answer"),
        ("Instruction: what is <image>? Answer: cat", "image_token"),
        ("Instruction: what? Answer: <|image_pad|>", "image_token"),
        ("Instruction: what? Answer: <|vision_start|><|image_pad|><|vision_end|>", "image_token"),
    ],
)
def test_each_reason(text: str, reason: str) -> None:
    assert parse_pair(text) == reason


def test_a_completion_that_was_cut_short_is_never_a_pair() -> None:
    assert parse_pair(render_pair("what?", "a ca"), truncated=True) == "truncated"


def test_prompts_are_functions_of_seed_and_id() -> None:
    prompts = Prompts()
    texts = {seed: [prompts.ask_pair(f"q{i}", seed)[-1]["content"] for i in range(50)] for seed in (0, 1)}
    assert texts[0] == [prompts.ask_pair(f"q{i}", 0)[-1]["content"] for i in range(50)]
    assert texts[0] != texts[1]
    assert len(prompts.propose) == 6 and len(prompts.invert) == 5  # as many as the paper has
