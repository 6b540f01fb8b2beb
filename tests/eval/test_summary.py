"""What the trials of a checkpoint add up to, with several trials of each problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from eval.summary import accuracy_of, summarise
from eval.tally import Vote, by_problem, tally
from eval.trial import Trial, TrialError

Make = Callable[..., list[Trial]]
HALF = ["correct", "wrong"] * 2


def test_accuracy_is_the_mean_over_problems_and_trials_of_one_are_one_draw(make_trials: Make) -> None:
    problems = [["correct"] * 8 if row < 12 else ["wrong"] * 8 for row in range(30)]
    once, eight = (summarise(make_trials([each[:n] for each in problems]), draws=2000) for n in (1, 8))
    assert eight.accuracy == once.accuracy  # Eight equal trials of a problem say no more than one.
    assert (eight.accuracy.value, eight.accuracy.n, eight.accuracy.clusters) == (0.4, 30, 30)
    assert (eight.trials, eight.problems, eight.samples) == (240, 30, 8)
    assert eight.outcomes["correct"] == 96 and sum(eight.outcomes.values()) == 240


def test_metrics_of_each_k(make_trials: Make) -> None:
    summary = summarise(make_trials([HALF] * 20), ks=[4, 1, 2, 2], draws=500)
    assert list(summary.metrics) == [
        "pass@1",
        *("pass@2", "pass^2", "maj@2", "consistency@2"),
        *("pass@4", "pass^4", "maj@4", "consistency@4"),
    ]
    assert summary.metrics["pass@1"] == summary.accuracy
    assert summary.metrics["pass@2"].value == pytest.approx(5 / 6)
    assert summary.metrics["pass^2"].value == pytest.approx(1 / 6)
    assert summary.metrics["maj@4"].value == 0.5  # Two right, and two alike that are wrong.
    json.dumps(asdict(summary), allow_nan=False)


def test_64_asked_and_8_there(make_trials: Make) -> None:
    """huggingface/lighteval#771: .4375 became .0547 when the sum of 8 was divided by 64."""
    there = [["correct"] * 7 + ["wrong"] * 9] * 40
    eight = [each[row % 2 * 8 :][:8] for row, each in enumerate(there)]  # 7 and 0 of 8 in turn
    summary = summarise(make_trials(eight), ks=[1, 8, 64], samples=64, draws=500)
    assert summary.accuracy.value == summary.metrics["pass@1"].value == 0.4375
    assert summary.metrics["pass@8"].value == 0.5
    assert summary.metrics["pass@64"].value is None
    assert "40 of 40 problems have fewer than the 64 trials asked for; one has 8" in summary.warnings
    assert "k = 64: only 0 of 40 problems have 64 graded trials" in summary.warnings
    assert summary.samples == 64


def test_what_is_printed_says_how_many_trials_there_were(make_trials: Make) -> None:
    """Simplified-Reasoning/LUFFY#31: avg@32 in the text, one trial in the code."""
    summary = summarise(make_trials([["correct"]] * 20 + [["wrong"]] * 20), ks=[32], samples=32, draws=500)
    assert (summary.trials, summary.problems) == (40, 40)
    assert all(each.value is None for name, each in summary.metrics.items() if name.endswith("32"))
    assert any("fewer than the 32 trials asked for; one has 1" in each for each in summary.warnings)
    # xinyan-cxy/MINT-CoT#12: a subset is seen in the n of each number.
    assert summarise(make_trials([["correct"]] * 5), draws=500).accuracy.n == 5


def test_10000_unparsable_completions_score_0_and_do_so_twice(make_trials: Make) -> None:
    """openai/evals PR#1447, lmms-eval's guess at unparsed options: no answer is never a random one."""
    trials = make_trials([["unparsed"] * 8] * 1250)
    first, again = (summarise(trials, ks=[4], draws=100) for _ in range(2))
    assert first == again
    assert (first.accuracy.value, first.outcomes["unparsed"], first.flexible) == (0.0, 10_000, 0.0)
    assert {name: each.value for name, each in first.metrics.items() if name != "consistency@4"} == {
        "pass@4": 0.0,
        "pass^4": 0.0,
        "maj@4": 0.0,
    }
    assert first.no_vote == 1250
    assert any(each.startswith("100.0% unparsed: compare the prompt, and the chat template") for each in first.warnings)


def test_a_judge_that_is_down_is_in_no_mean(make_trials: Make) -> None:
    """lm-sys/FastChat PR#2074 averaged errors as −1, others as 0, others dropped them: 1 of 10 trials here."""
    summary = summarise(make_trials([["correct"] * 6 + ["wrong"] * 3 + ["ungraded"]] * 30), ks=[9, 10], draws=500)
    assert summary.accuracy.value == pytest.approx(6 / 9)
    assert summary.outcomes["ungraded"] == 30
    assert summary.bounds == pytest.approx((0.6, 0.7))
    assert summary.metrics["pass^9"].value == 0.0 and summary.metrics["pass@10"].value is None
    assert any(each.startswith("10.0% ungraded") for each in summary.warnings)
    failed = [
        trial.model_copy(update={"reason": "error: no image"}) if trial.outcome == "ungraded" else trial
        for trial in make_trials([["correct"] * 9 + ["ungraded"]] * 30)
    ]
    told = "10.0% ungraded: this is not a finished result; most often: error: no image"
    assert told in summarise(failed, draws=100).warnings
    # One trial of each: a tenth of the problems is not known, and no headline is made of the rest.
    one = summarise(make_trials([["correct"]] * 27 + [["ungraded"]] * 3), draws=500)
    assert (one.accuracy.value, one.accuracy.reason) == (None, "only 27 of 30 trials could be graded")
    assert one.bounds == (0.9, 1.0)


def test_a_problem_without_a_graded_trial_leaves_the_mean_with_a_warning(make_trials: Make) -> None:
    summary = summarise(make_trials([HALF] * 39 + [["ungraded"] * 4]), ks=[2], draws=500)
    assert (summary.accuracy.value, summary.accuracy.n) == (0.5, 39)
    assert sum("over 39 of 40 problems" in each for each in summary.warnings) == 1
    lost = summarise(make_trials([HALF] * 9 + [["ungraded"] * 4]), draws=500)
    assert (lost.accuracy.value, lost.accuracy.reason) == (None, "only 9 of 10 problems have a graded trial")


def test_strict_and_flexible_gap(make_trials: Make) -> None:
    """lm-eval PR#2034: one set of completions, flexible .7847 and strict .2017."""
    outcomes = [["correct"]] * 266 + [["unparsed"]] * (1319 - 266)
    trials = [
        trial.model_copy(update={"reward": trial.reward.model_copy(update={"flexible": float(row < 1035)})})
        for row, trial in enumerate(make_trials(outcomes))
    ]
    summary = summarise(trials, draws=200)
    assert (summary.accuracy.value, summary.flexible) == pytest.approx((0.2017, 0.7847), abs=5e-5)


def test_flexible_is_over_problems_too(make_trials: Make) -> None:
    trials = make_trials([["correct", "ungraded", "ungraded"], ["wrong", "wrong", "correct"]])
    assert summarise(trials, draws=50).flexible == pytest.approx((1 + 1 / 3) / 2)


def test_token_limit_is_shown_with_the_score_among_the_finished(make_trials: Make) -> None:
    """allenai/olmo-eval#399: 27.5 % at the limit, 69.3 overall and 95.6 among the finished."""
    outcomes = [["truncated"]] * 275 + [["correct"]] * 693 + [["wrong"]] * 32
    summary = summarise(make_trials(outcomes), draws=200)
    assert (summary.token_limit, summary.accuracy.value) == (0.275, 0.693)
    assert summary.among_finished == pytest.approx(0.956, abs=5e-4)
    (warning,) = (each for each in summary.warnings if "truncated" in each)
    assert "69.3% are right overall, 95.6% among the finished" in warning
    assert not summarise(make_trials([["truncated"]] + [["correct"]] * 49), draws=200).warnings  # 2 % is no warning.
    reasoner = summarise(make_trials([["unparsed"]] * 30), engine="latent", draws=200).warnings
    said = " ".join(reasoner)
    assert "leaves cells empty; else see that the answers are grids" in said and "chat template" not in said


def test_an_open_thought_is_truncated_without_being_at_the_limit(make_trial: Callable[..., Trial]) -> None:
    trials = [make_trial("p0", "truncated", finish="stop"), make_trial("p1", "correct")]
    assert (summarise(trials, draws=50).token_limit, summarise(trials, draws=50).among_finished) == (0.0, 1.0)


def test_tokens_and_seconds_are_of_the_trials_that_have_them(make_trial: Callable[..., Trial]) -> None:
    trials = [
        make_trial("p0", "correct", completion_tokens=10, seconds=0.5),
        make_trial("p0", "wrong", 1, completion_tokens=30),
        make_trial("p1", "wrong"),
    ]
    summary = summarise(trials, draws=50)
    assert (summary.mean_tokens, summary.mean_seconds) == (20, 0.5)
    assert summarise(trials[2:], draws=50).mean_seconds is None


def test_every_factor_is_broken_down(make_trial: Callable[..., Trial]) -> None:
    trials = [
        make_trial(
            f"p{row}", "correct" if row % 4 else "wrong", sample, factors={"kind": "sum", "level": str(row % 3 + 9)}
        )
        for row in range(60)
        for sample in range(2)
    ]
    trials += [make_trial("q", "correct", factors={"subject": "algebra"})]
    summary = summarise(trials, draws=500)
    assert list(summary.factors) == ["kind", "level", "subject"]
    assert list(summary.factors["level"]) == ["9", "10", "11"]  # In the order of their numbers.
    for level, estimate in summary.factors["level"].items():
        own = [trial for trial in trials if trial.factors.get("level") == level]
        assert estimate == accuracy_of(own, draws=500)
        assert (estimate.n, estimate.value) == (20, 0.75)
    assert summary.kinds == summary.factors["kind"]
    assert summary.factors["subject"]["algebra"].reason is not None  # One problem has no interval.


def test_equal_answers_are_the_callers(make_trial: Callable[..., Trial]) -> None:
    answers = ["0.5", "1/2", "3", "3"]
    outcomes = ["correct", "correct", "wrong", "wrong"]
    trials = [
        make_trial(f"p{row}", outcome, sample, answer=answer)
        for row in range(20)
        for sample, (answer, outcome) in enumerate(zip(answers, outcomes, strict=True))
    ]
    by_text = summarise(trials, ks=[4], draws=100)
    by_value = summarise(trials, ks=[4], draws=100, group=lambda trial: {"1/2": "0.5"}.get(*[trial.extract.strict] * 2))
    assert by_text.metrics["maj@4"].value == 0.0  # 3 is the most frequent text
    assert by_value.metrics["maj@4"].value == 0.5


def test_votes_of_a_problem(make_trial: Callable[..., Trial]) -> None:
    outcomes: Sequence[tuple[str, Any]] = [
        ("correct", "Seven."),
        ("correct", "7"),
        ("wrong", "8"),
        ("unparsed", "eight or so"),
        ("truncated", "8"),
        ("ungraded", "9"),
        ("wrong", "?"),
    ]
    trials = [make_trial("p", outcome, row, answer=answer) for row, (outcome, answer) in enumerate(outcomes)]
    found = tally(trials)
    assert (found.n, found.passes) == (6, 2)
    assert found.votes == (Vote(2, 2), Vote(1, 0), Vote(1, 0))


def test_a_trial_that_occurs_twice_is_named(make_trial: Callable[..., Trial]) -> None:
    trials = [make_trial("p", "correct", 3), make_trial("p", "wrong", 3)]
    with pytest.raises(TrialError, match="two trials for problem `p`, sample 3"):
        summarise(trials)


def test_a_problem_in_two_clusters_is_named(make_trial: Callable[..., Trial]) -> None:
    trials = [make_trial("p", "correct"), make_trial("p", "wrong", 1, cluster="image")]
    with pytest.raises(TrialError, match="problem `p` is in clusters `p` and `image`"):
        by_problem(trials)


def test_a_summary_is_of_one_checkpoint(make_trial: Callable[..., Trial]) -> None:
    for trials in ([], [make_trial("p", "correct"), make_trial("q", "correct", label="other")]):
        with pytest.raises(ValueError, match="a summary is of one checkpoint"):
            summarise(trials)
