from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import Decoding, Generation, Request, Score, ScoreRequest
from engines.settings import LatentSettings
from eval.compare import Evaluated, across_seeds, adjust, compare, verdict
from eval.evaluate import Asked, evaluate
from eval.extract import Forms
from eval.grading import Grader, grade, refused_golds
from eval.protocol import Protocol
from eval.registry import find
from eval.suite import CompareError, Suite, digest, file_sha, problems_sha
from eval.summary import constant_baseline, summarise
from eval.trial import Trial, dump
from rewards.builtin import exact_match
from rewards.contract import note
from rewards.forms import short
from rewards.puzzles import countdown
from tasks.problem import Problem
from tasks.registry import load


class Parrot:
    """Answers from a table: text, or (text, finish)."""

    def __init__(self, answers: Mapping[str, str | tuple[str, str]]) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            self.asked.append(request)
            answer = self.answers[request.id]
            text, finish = answer if isinstance(answer, tuple) else (answer, "stop")
            error = "the image is no image" if finish == "error" else None
            yield Generation(request.id, text, tuple(range(len(text))), finish, 7, error)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        raise NotImplementedError

    def close(self) -> None:
        pass


PROBLEMS = [Problem(f"p{i}", f"colour {i}?", "red", None, f"image{i // 2}", "colour") for i in range(40)]
YES = [Problem(f"y{i}", f"is it {i}?", "yes", None, f"image{i}", "") for i in range(30)]
SUITE = Suite("test", "exact_match", Decoding(max_new_tokens=4), system="Be brief.", suffix=" One word.")


EXACT = Grader(exact_match, {})


def run(problems: Sequence[Problem], answers: Mapping[str, Any], label: str = "tune") -> list[Trial]:
    settings = SUITE.settings(problems)
    return list(
        evaluate(
            list(map(Asked, problems)),
            Parrot(answers),
            EXACT,
            SUITE,
            label=label,
            suite_digest=digest(settings),
            seed=3,
        )
    )


def evaluated(problems: Sequence[Problem], answers: Mapping[str, Any], label: str) -> Evaluated:
    return Evaluated(label, SUITE.settings(problems), run(problems, answers, label))


def share(problems: Sequence[Problem], right: int) -> dict[str, str]:
    return {problem.id: "red" if index < right else "blue" for index, problem in enumerate(problems)}


def test_every_outcome() -> None:
    answers = {
        "p0": "Red.",
        "p1": "blue",
        "p2": "",
        "p3": ("re", "length"),
        "p4": ("", "error"),
        "p5": "<think>red",
    }
    trials = run(PROBLEMS[:6], answers)
    assert [t.outcome for t in trials] == ["correct", "wrong", "unparsed", "truncated", "ungraded", "truncated"]
    assert trials[4].reason == "error: the image is no image"
    assert [t.problem_id for t in trials] == [p.id for p in PROBLEMS[:6]]
    assert trials[0].cluster == trials[1].cluster == "image0"
    assert trials[0].factors == {"kind": "colour"}


def test_what_was_complete_before_the_token_limit_counts_in_accuracy_and_protocol_alike() -> None:
    """Sixteen tokens are enough for yes or no, and too few for all that is said after it."""
    said = {"yes": "Yes, there is a snowboard in the image, lying on", "no": "No, there is no snowboard, only a"}
    answers: dict[str, Any] = {each.id: (said[each.answer], "length") for each in YES} | {YES[0].id: ("ye", "length")}
    suite = replace(SUITE, forms=Forms("yes_no", "auto"), protocol=Protocol(yes_no=True))
    found = evaluate(list(map(Asked, YES)), Parrot(answers), EXACT, suite, label="a", suite_digest="d")
    summary = summarise(list(found), protocol=suite.protocol, draws=200)
    assert summary.outcomes["truncated"] == 1 and summary.outcomes["correct"] == len(YES) - 1
    assert summary.token_limit == 1
    share = {each.name: each.estimate.value for each in summary.protocol}["yes"]
    assert share == (sum(each.answer == "yes" for each in YES) - (YES[0].answer == "yes")) / len(YES)


def test_the_model_is_asked_what_the_suite_says() -> None:
    parrot = Parrot({"p0": "red"})
    list(evaluate([Asked(PROBLEMS[0])], parrot, EXACT, SUITE, label="a", suite_digest="d"))
    (request,) = parrot.asked
    assert [dict(turn) for turn in request.messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "colour 0? One word."},
    ]
    assert request.decoding == Decoding(max_new_tokens=4)


def test_resuming_gives_the_trials_of_an_undisturbed_run() -> None:
    answers = share(PROBLEMS, 20)
    whole = run(PROBLEMS, answers)
    settings = digest(SUITE.settings(PROBLEMS))
    again = [
        trial
        for start in (0, 7, 30)
        for trial in evaluate(
            list(map(Asked, PROBLEMS[start : {0: 7, 7: 30, 30: 40}[start]])),
            Parrot(answers),
            EXACT,
            SUITE,
            label="tune",
            suite_digest=settings,
            seed=3,
        )
    ]
    assert [*map(dump, again)] == [*map(dump, whole)]


def test_the_reward_sees_only_what_was_extracted() -> None:
    seen: list[str] = []

    def spy(prompts: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
        seen.extend(completions)
        assert set(columns) == {"answer", "question", "kind", "image"}
        return [None] * len(completions)

    answers = {"y0": "Yes, it is", "y1": "perhaps", "y2": ("yes", "length")}
    trials = list(
        evaluate(list(map(Asked, YES[:3])), Parrot(answers), Grader(spy, {}), SUITE, label="a", suite_digest="d")
    )
    assert set(seen) == {"yes"}
    assert [trial.outcome for trial in trials] == ["ungraded", "unparsed", "truncated"]


def test_a_reward_with_columns_meets_a_chunk_without_any_answer() -> None:
    problems = [Problem("a", "make 3", "1+2", columns={"numbers": [1, 2], "target": 3})]
    suite = Suite("test", "countdown", Decoding(max_new_tokens=4))
    cut, right = (
        list(
            evaluate(
                [Asked(problems[0])], Parrot({"a": answer}), Grader(countdown, {}), suite, label="x", suite_digest="y"
            )
        )
        for answer in (("1+", "length"), "2+1")
    )
    assert (cut[0].outcome, right[0].outcome) == ("truncated", "correct")


def test_summary_counts_each_failure_on_its_own_line() -> None:
    answers: dict[str, Any] = share(PROBLEMS, 20) | {"p38": ("", "error"), "p39": "", "p37": ("x", "length")}
    summary = summarise(run(PROBLEMS, answers), draws=200)
    assert summary.outcomes == {"correct": 20, "wrong": 17, "unparsed": 1, "truncated": 1, "ungraded": 1}
    assert sum(summary.outcomes.values()) == summary.trials == 40
    assert summary.accuracy.value == pytest.approx(20 / 39)
    assert summary.accuracy.clusters == 20
    assert summary.bounds == (20 / 40, 21 / 40)
    assert summary.among_finished == pytest.approx(20 / 38)
    assert summary.kinds["colour"] == summary.accuracy
    assert any("ungraded" in warning for warning in summary.warnings)


def test_too_many_ungraded_leave_no_score() -> None:
    answers: dict[str, Any] = share(PROBLEMS, 20) | {f"p{i}": ("", "error") for i in range(30, 40)}
    summary = summarise(run(PROBLEMS, answers), draws=200)
    assert summary.accuracy.value is None
    assert summary.accuracy.reason == "only 30 of 40 trials could be graded"


def test_unparsable_completions_score_zero_and_say_so() -> None:
    answers = {problem.id: "hard to tell" for problem in YES}
    first, again = summarise(run(YES, answers)), summarise(run(YES, answers))
    assert first == again
    assert first.accuracy.value == 0.0 and first.outcomes["unparsed"] == 30
    assert first.accuracy.high == pytest.approx(0.1157, abs=5e-5)


def test_strict_and_flexible_stand_side_by_side() -> None:
    answers = {problem.id: "The answer is yes" if index < 15 else "yes" for index, problem in enumerate(YES)}
    summary = summarise(run(YES, answers))
    assert (summary.accuracy.value, summary.flexible) == (0.5, 1.0)


def test_constant_baseline() -> None:
    mixed = [*YES[:3], *PROBLEMS[:2], Problem("n", "?", "No.")]
    assert (constant_baseline(mixed).answer, constant_baseline(mixed).value) == ("yes", 0.5)


def test_compare_is_paired_and_antisymmetric() -> None:
    a, b = evaluated(PROBLEMS, share(PROBLEMS, 30), "update"), evaluated(PROBLEMS, share(PROBLEMS, 20), "tune")
    there, back = compare(a, b), compare(b, a)
    assert there.difference.estimate.value == pytest.approx(0.25)
    assert (there.difference.better, there.difference.worse) == (0.25, 0.0)
    assert there.difference.estimate.low == -back.difference.estimate.high  # type: ignore[operator]
    assert there.difference.estimate.clusters == 20


def test_what_one_side_could_not_grade_is_left_out_of_both() -> None:
    a = evaluated(PROBLEMS, share(PROBLEMS, 30) | {"p0": ("", "error")}, "update")  # type: ignore[arg-type]
    b = evaluated(PROBLEMS, share(PROBLEMS, 30) | {"p1": ("", "error")}, "tune")  # type: ignore[arg-type]
    found = compare(a, b)
    assert found.left_out == 2 and found.difference.estimate.n == 38
    assert found.difference.estimate.value == 0.0


def test_another_setting_is_refused_by_name_and_can_be_allowed() -> None:
    a = evaluated(PROBLEMS, share(PROBLEMS, 30), "update")
    b = evaluated(PROBLEMS, share(PROBLEMS, 20), "tune")
    changed = {
        **b.settings,
        "prompt": {"system": None, "prefix": "", "suffix": " One word."},
        "engine": {"kind": "vllm"},
    }
    other = Evaluated("tune", changed, b.trials)
    with pytest.raises(CompareError, match=r"engine\.kind, prompt\.system differ"):
        compare(a, other)
    assert compare(a, other, allow=["engine", "prompt.system"]) == compare(a, b)


def test_other_problems_are_refused() -> None:
    a = evaluated(PROBLEMS, share(PROBLEMS, 30), "update")
    with pytest.raises(CompareError, match="different problems"):
        compare(a, Evaluated("tune", a.settings, a.trials[1:]))
    with pytest.raises(CompareError, match="two trials"):
        compare(a, Evaluated("tune", a.settings, [*a.trials, a.trials[0]]))


def test_settings_name_the_problems() -> None:
    assert digest(SUITE.settings(PROBLEMS)) != digest(SUITE.settings(PROBLEMS[::-1]))


def seeds(rights: Sequence[int], label: str) -> list[Evaluated]:
    return [evaluated(PROBLEMS, share(PROBLEMS, right), f"{label}/{seed}") for seed, right in enumerate(rights)]


def test_across_seeds() -> None:
    arms = {
        "random": seeds([20, 20, 20], "random"),
        "ours": seeds([32, 30, 34], "ours"),
        "noise": seeds([21, 20, 19], "noise"),
    }
    random, ours, noise = across_seeds(arms, "random", draws=2000)
    assert (random.comparison, random.verdict) == (None, "the control")
    assert ours.per_seed == pytest.approx((0.8, 0.75, 0.85))
    assert ours.per_seed_difference == pytest.approx((0.3, 0.25, 0.35))
    assert ours.comparison is not None and ours.comparison.difference.estimate.value == pytest.approx(0.3)
    assert ours.comparison.difference.estimate.clusters == 20
    assert ours.verdict == "improved on random, 3 seeds"
    assert noise.verdict.startswith("no difference shown at this size")
    assert noise.comparison is not None and ours.comparison.p_holm is not None
    assert ours.comparison.p_holm == pytest.approx(2 * ours.comparison.difference.p)  # type: ignore[operator]


def test_a_claim_takes_three_seeds() -> None:
    arms = {"random": seeds([20, 20], "random"), "ours": seeds([32, 30], "ours")}
    assert "a claim takes 3 seeds, not 2" in across_seeds(arms, "random", draws=2000)[1].verdict
    pair = compare(seeds([32], "ours")[0], seeds([20], "random")[0], draws=2000)
    assert "a claim takes 3 seeds, not 1" in verdict(pair, 1)


def test_across_seeds_refuses_what_cannot_be_paired() -> None:
    arms = {"random": seeds([20, 20], "random"), "ours": seeds([32], "ours")}
    with pytest.raises(CompareError, match="random 2, ours 1"):
        across_seeds(arms, "random")
    with pytest.raises(CompareError, match="no arm `bottom`"):
        across_seeds(arms, "bottom")


def test_adjusting_keeps_order_and_estimates() -> None:
    base = seeds([20], "base")[0]
    pairs = [compare(seeds([right], f"a{right}")[0], base, draws=500) for right in (21, 36)]
    adjusted = adjust(pairs)
    assert [each.a for each in adjusted] == [each.a for each in pairs]
    assert all(each.p_holm >= each.difference.p for each in adjusted)  # type: ignore[operator]


def test_an_answer_against_the_rules_fails_before_a_wrong_one() -> None:
    problems = [Problem(name, "make 3", "1+2", columns={"numbers": [1, 2], "target": 3}) for name in "abcd"]
    suite = Suite("test", "countdown", Decoding(max_new_tokens=4))
    answers = {"a": "2+1", "b": "1-2", "c": "3", "d": "none"}
    grader = Grader(countdown, {})
    trials = list(evaluate(list(map(Asked, problems)), Parrot(answers), grader, suite, label="x", suite_digest="y"))
    assert [trial.outcome for trial in trials] == ["correct", "wrong", "wrong", "unparsed"]
    failed = [[check.phase for check in trial.checks if check.verdict == "fail"] for trial in trials]
    assert failed == [[], ["correct"], ["valid"], ["parsed"]]
    shares = {phase.name: phase.failed for phase in summarise(trials, draws=100).phases}
    assert shares == {"finished": 0, "parsed": 1, "valid": 1, "correct": 1}


def test_factors_are_the_kind_and_the_columns_that_a_suite_names() -> None:
    problem = Problem(
        "a", "?", "red", kind="count", columns={"object": "cat", "relation": None, "count": 2, "other": 1}
    )
    suite = Suite("test", "exact_match", factors=("object", "relation", "count", "missing"))
    (trial,) = evaluate([Asked(problem)], Parrot({"a": "red"}), EXACT, suite, label="x", suite_digest="y")
    assert trial.factors == {"kind": "count", "object": "cat", "count": "2"}


def test_further_rewards_are_kept_with_their_state_and_decide_nothing() -> None:
    suite = Suite("test", "exact_match", also=("number",))
    grader = Grader.of(suite)
    problems = [Problem("a", "?", "3"), Problem("b", "?", "three apples")]
    trials = list(
        evaluate(
            list(map(Asked, problems)),
            Parrot({"a": "3.0", "b": "three apples"}),
            grader,
            suite,
            label="x",
            suite_digest="y",
        )
    )
    assert [trial.outcome for trial in trials] == ["wrong", "correct"]
    assert trials[0].scores["number"].value == 1.0 and trials[0].scores["number"].state is None
    assert trials[1].scores["number"].value is None and trials[1].scores["number"].state == "no gold"


def test_a_flexible_answer_that_could_not_be_graded_leaves_the_mean() -> None:
    def late(prompts: Any, completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float | None]:
        for row, completion in enumerate(completions):
            if completion == "7":
                note(row, "timeout")
        return [None if each == "7" else 0.0 for each in completions]

    suite = Suite("test", "exact_match", forms=Forms("whole", "last_number"))
    problems = [Problem("a", "?", "1"), Problem("b", "?", "1")]
    parrot = Parrot({"a": "it is 7", "b": "it is 8"})
    trials = list(evaluate(list(map(Asked, problems)), parrot, Grader(late, {}), suite, label="x", suite_digest="y"))
    assert [trial.outcome for trial in trials] == ["wrong", "wrong"]
    assert [trial.flexible_score for trial in trials] == [None, 0.0]
    assert trials[0].reward.flexible_state == "timeout"


def test_all_that_a_problem_is_makes_another_suite(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    problem = Problem("a", "?", "1", str(image), kind="x", columns={"numbers": [1, 2]})
    shas = {problems_sha([problem])}
    for change in ({"kind": "y"}, {"columns": {"numbers": [1, 3]}}, {"cluster": "c"}):
        shas.add(problems_sha([replace(problem, **change)]))  # type: ignore[arg-type]
    file_sha.cache_clear()
    image.write_bytes(b"two")
    shas.add(problems_sha([problem]))
    assert len(shas) == 5


def test_gold_answers_that_could_never_be_right() -> None:
    def half(prompts: Any, completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float | None]:
        return [0.5] * len(completions)

    assert refused_golds([Problem("a", "?", "x")], half) == [("a", "score 0.5")]
    wrong = [Problem("a", "make 7", "1 + 1", columns={"numbers": [1, 1], "target": 7})]
    assert refused_golds(wrong, countdown) == []
    assert refused_golds(wrong, countdown, every=True) == [("a", "score 0")]
    assert refused_golds(wrong, short, every=True) == []


@pytest.mark.parametrize("name", ["sudoku-4-easy", "sudoku-9-easy", "maze-easy"])
def test_a_reasoner_s_bare_grid_is_an_answer_to_the_shipped_suites(name: str) -> None:
    from pipelines.stages.evaluate import EvaluateStage

    file = find(name)
    problem = load(**{**file.data, "size": 1}).problems[0]
    context: Any = SimpleNamespace(recipe=SimpleNamespace(engine=LatentSettings.model_validate({})))
    suite = EvaluateStage.model_validate({"suite": name})._suite(context, 1)
    assert suite.messages(problem) == [{"role": "user", "content": problem.question}]
    (verdict,) = grade(suite, Grader.of(suite), [problem], [()], [problem.answer], ["stop"])
    assert verdict.outcome == "correct" and verdict.reward.flexible == 1.0
