"""The split hides what it says, in the shares it says, and nothing hidden reaches the prompt."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from pydantic import ValidationError

from selfrefine.triad.hide import Split, tuning_examples
from selfrefine.triad.templates import Prompts
from tasks.problem import Problem


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_are_met_within_half_a_point(seed: int) -> None:
    drawn = Counter(Split().hidden(f"q{i}", seed) for i in range(100_000))
    for hidden, share in (("pair", 0.5), ("question", 0.2), ("answer", 0.3)):
        assert drawn[hidden] / 100_000 == pytest.approx(share, abs=0.005)


def test_a_sample_keeps_its_task_in_any_order_and_changes_it_with_the_seed() -> None:
    problems = [Problem(f"q{i}", f"question {i}?", f"answer {i}", "i.png") for i in range(300)]
    shuffled = random.Random(0).sample(problems, len(problems))
    in_order = dict(zip((p.id for p in problems), tuning_examples(problems, Split(), Prompts(), 7), strict=True))
    mixed = dict(zip((p.id for p in shuffled), tuning_examples(shuffled, Split(), Prompts(), 7), strict=True))
    assert in_order == mixed
    assert [Split().hidden(p.id, 7) for p in problems] != [Split().hidden(p.id, 8) for p in problems]


def test_what_is_hidden_never_reaches_the_prompt_and_all_of_it_is_the_target() -> None:
    problems = [Problem(f"q{i}", f"QUEST{i}MARK", f"ANSW{i}MARK", f"{i}.png") for i in range(500)]
    seen = Counter[str]()
    for problem, example in zip(problems, tuning_examples(problems, Split(), Prompts(), 0), strict=True):
        prompt = "\n".join(message["content"] for message in example.messages)
        hidden = Split().hidden(problem.id, 0)
        seen[hidden] += 1
        asked, answered = problem.question in prompt, problem.answer in prompt
        assert (asked, answered) == {
            "pair": (False, False),
            "question": (False, True),
            "answer": (True, False),
        }[hidden]
        assert (problem.question in example.completion, problem.answer in example.completion) == (
            not asked,
            not answered,
        )
        assert example.messages[-1]["role"] == "user"
        assert example.image == problem.image
    assert min(seen[hidden] for hidden in ("pair", "question", "answer")) > 50


def test_every_paraphrase_is_used_and_a_task_without_a_system_prompt_has_none() -> None:
    problems = [Problem(f"q{i}", "q?", "a", "i.png") for i in range(500)]
    prompts = Prompts(system=None)
    examples = list(tuning_examples(problems, Split(pair=1, question=0, answer=0), prompts, 0))
    assert {e.messages[0]["content"] for e in examples} == set(prompts.propose)
    assert {len(e.messages) for e in examples} == {1}


def test_a_sample_without_an_image_hides_its_answer() -> None:
    problems = [Problem(f"q{i}", f"question {i}?", f"answer {i}") for i in range(50)]
    assert [e.completion for e in tuning_examples(problems, Split(), Prompts(), 0)] == [p.answer for p in problems]


def test_shares_that_are_no_split_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be 1, not 0\.9"):
        Split(pair=0.4)
