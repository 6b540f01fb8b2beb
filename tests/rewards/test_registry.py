from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rewards import registry
from rewards.builtin import exact_match
from rewards.contract import RewardError, score


def test_loads_by_name() -> None:
    assert registry.load("exact_match") is exact_match
    assert [entry.name for entry in registry.entries()] == sorted(entry.name for entry in registry.entries())


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(RewardError, match=r"`exact_mach`; did you mean `exact_match`"):
        registry.load("exact_mach")


def test_a_name_far_from_all_gets_the_list() -> None:
    with pytest.raises(RewardError, match=r"there are: .*exact_match"):
        registry.entry("zzz")


def test_listing_imports_neither_torch_nor_a_reward() -> None:
    code = (
        "import sys; from rewards import registry; registry.entries();"
        "assert not {'torch', 'transformers', 'datasets', 'rewards.builtin'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exact_match_on_strings_and_conversations() -> None:
    completions = ["Red.", [{"role": "assistant", "content": "the RED"}], "blue", "red"]
    assert exact_match([""] * 4, completions, answer=["red", "red", "red", None]) == [1.0, 1.0, 0.0, None]


def test_exact_match_takes_text_parts() -> None:
    turn = [{"role": "assistant", "content": [{"type": "text", "text": "red"}]}]
    assert exact_match([""], [turn], answer=["red"]) == [1.0]


def test_an_unusable_gold_is_not_scored() -> None:
    assert exact_match([""], ["..."], answer=["..."]) == [None]


def test_other_columns_are_welcome_and_a_missing_one_is_named() -> None:
    assert exact_match([""], ["1"], answer=["one"], kind=["count"]) == [1.0]
    with pytest.raises(TypeError, match="answer"):
        exact_match([""], ["1"])  # type: ignore[call-arg]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        exact_match(["", ""], ["1", "2"], answer=["1"])


@pytest.mark.parametrize(("returned", "complaint"), [([1.0], "1 scores for 2"), ([1.0, float("nan")], "nan")])
def test_a_reward_is_held_to_its_contract(returned: list[float], complaint: str) -> None:
    def broken(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return list(returned)

    with pytest.raises(RewardError, match=complaint):
        score(broken, ["", ""], ["a", "b"])


def test_none_survives() -> None:
    assert score(exact_match, ["", ""], ["a", "b"], answer=["a", None]).values == [1.0, None]


def test_prompts_and_completions_come_by_name_as_from_trl() -> None:
    def of_trl(completions: list[str], **columns: object) -> list[float]:
        return [float(text == "a") for text in completions]

    def other_way_round(completions: list[str], prompts: list[str], *, answer: list[str]) -> list[float]:
        return [float(text == gold) for text, gold in zip(completions, answer, strict=True)]

    def by_place(asked: list[str], said: list[str], /, **columns: object) -> list[float]:
        return [float(text == "a") for text in said]

    for reward in (of_trl, other_way_round, by_place):
        assert score(reward, ["p", "p"], ["a", "b"], answer=["a", "a"]).values == [1.0, 0.0]  # type: ignore[arg-type]
