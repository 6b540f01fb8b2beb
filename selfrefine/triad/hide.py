"""Which part of a labelled sample is hidden, so that a model learns to ask as well as to answer.

Source: arXiv 2510.10487, section 2.1, 4.2 and table A5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfrefine.sft import Example
from selfrefine.triad.templates import Prompts, render_pair, render_question
from tasks.draw import uniform
from tasks.problem import Problem

Hidden = Literal["pair", "question", "answer"]


class Split(BaseModel):
    """Shares of the three tasks. A sample without an image can only hide its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: float = Field(0.5, ge=0, le=1, description="image → question and answer")
    question: float = Field(0.2, ge=0, le=1, description="image, answer → question")
    answer: float = Field(0.3, ge=0, le=1, description="image, question → answer")

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs(self.pair + self.question + self.answer - 1) > 1e-9:
            raise ValueError(f"pair + question + answer must be 1, not {self.pair + self.question + self.answer:g}")
        return self

    def hidden(self, identity: str, seed: int) -> Hidden:
        """The one task of a sample: a function of seed and id, so that the split does not depend on order."""
        drawn = uniform("hide", seed, identity)
        if drawn < self.pair:
            return "pair"
        return "question" if drawn < self.pair + self.question else "answer"


def tuning_examples(problems: Sequence[Problem], split: Split, prompts: Prompts, seed: int) -> Iterator[Example]:
    """One example per problem; what is hidden is the target and stands nowhere in the prompt."""
    for problem in problems:
        hidden = split.hidden(problem.id, seed) if problem.image else "answer"
        if hidden == "pair":
            messages, target = prompts.ask_pair(problem.id, seed), render_pair(problem.question, problem.answer)
        elif hidden == "question":
            messages = prompts.ask_question(problem.answer, problem.id, seed)
            target = render_question(problem.question)
        else:
            messages, target = prompts.ask_answer(problem.question), problem.answer
        yield Example(messages, target, problem.image)
