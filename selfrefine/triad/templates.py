"""What the model is told and what it writes: the prompts of the three tasks, and the labels that are parsed.

Source: arXiv 2510.10487, section 2.1 and appendix B; the words of the prompts are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from engines.base import Message, turns
from tasks.draw import seed64

QUESTION_LABEL = "Instruction:"
ANSWER_LABEL = "Answer:"
_IMAGE_TOKEN = re.compile(r"<image>|<\|?(?:image|video|vision)[\w ]*\|?>|<fake_token_around_image>|<image_soft_token>")

DROP_REASONS = {
    "no_label": "a label is missing or stands in the wrong place",
    "label_twice": "a label stands there twice",
    "empty": "the question or the answer is empty",
    "question_is_answer": "question and answer are the same text",
    "image_token": "an image placeholder was written as text",
    "truncated": "the token limit cut it short",
}

_SYSTEM = (
    "You are an assistant that sees images and reads text. You are given one of three kinds of task, and its wording "
    "tells which: write a question and its answer for an image, write the question that an answer belongs to, or "
    "answer a question. Complete the task by writing the response only."
)
_PROPOSE = (
    "Write an instruction-and-answer pair that fits this image.",
    "Build a question about this image together with its answer.",
    "Generate one question-and-answer pair from what the image shows.",
    "What can be asked about this image, and what is the answer?",
    "Can you make up an instruction for this image and answer it?",
    "Which question does this image answer? Give both.",
)
_INVERT = (
    "Write the instruction that this answer responds to.",
    "Build the question for this answer about the image.",
    "Generate the instruction from the answer.",
    "What is the question if this is the answer?",
    "Which instruction could have led to this response?",
)


class Prompts(BaseModel):
    """The wording of the three tasks. One paraphrase is drawn per sample, by seed and id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = Field(_SYSTEM, description="replaces the model's own in tune, generate and filter")
    propose: Sequence[str] = Field(_PROPOSE, min_length=1, description="image → question and answer")
    invert: Sequence[str] = Field(_INVERT, min_length=1, description="image, answer → question")

    def ask_pair(self, identity: str, seed: int) -> list[Message]:
        """I → QA: the prompt that hides both."""
        return self._turns(_pick(self.propose, "propose", seed, identity))

    def ask_question(self, answer: str, identity: str, seed: int) -> list[Message]:
        """IA → Q: the prompt that hides the question."""
        return self._turns(f"{_pick(self.invert, 'invert', seed, identity)}\n{ANSWER_LABEL} {answer}")

    def ask_answer(self, question: str) -> list[Message]:
        """IQ → A: the question as it is."""
        return self._turns(question)

    def _turns(self, text: str) -> list[Message]:
        return turns(text, self.system or None)


def render_pair(question: str, answer: str) -> str:
    """The completion of I → QA."""
    return f"{QUESTION_LABEL} {question} {ANSWER_LABEL} {answer}"


def render_question(question: str) -> str:
    """The completion of IA → Q."""
    return f"{QUESTION_LABEL} {question}"


def parse_pair(text: str, *, truncated: bool = False) -> tuple[str, str] | str:
    """(question, answer) of a completion, or the reason it has none: a key of `DROP_REASONS`."""
    if truncated:
        return "truncated"
    text = text.strip()
    if text.count(QUESTION_LABEL) > 1 or text.count(ANSWER_LABEL) > 1:
        return "label_twice"
    if not text.startswith(QUESTION_LABEL) or ANSWER_LABEL not in text:
        return "no_label"
    question, _, answer = text.removeprefix(QUESTION_LABEL).partition(ANSWER_LABEL)
    return _usable(question.strip(), answer.strip())


def parse_question(text: str) -> str | None:
    """The question of an IA → Q completion; None where there is none."""
    text = text.strip()
    if text.count(QUESTION_LABEL) != 1 or not text.startswith(QUESTION_LABEL):
        return None
    return text.removeprefix(QUESTION_LABEL).strip() or None


def _usable(question: str, answer: str) -> tuple[str, str] | str:
    if not question or not answer:
        return "empty"
    if question.casefold() == answer.casefold():
        return "question_is_answer"
    if _IMAGE_TOKEN.search(question) or _IMAGE_TOKEN.search(answer):
        return "image_token"
    return question, answer


def _pick(options: Sequence[str], *parts: object) -> str:
    return options[seed64(*parts) % len(options)]
