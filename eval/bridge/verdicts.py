"""The harness's rows as trials: the filters of a document are extractions of one answer, not answers of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.bridge.rows import Outline, Row
from eval.extract import ends_with
from eval.trial import Extract, Outcome, Rewards, Score, Trial, TrialError

_FIRST_METRIC = "exact_match"


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one document.

    `rows` by filter, which speak of this answer. `answer` is the completion. What the harness's files do not hold is
    None here.
    """

    rows: Mapping[str, Row]
    sample: int
    answer: str
    finish: str | None = None
    error: str | None = None
    seed: int = 0
    prompt: tuple[dict[str, str], ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Which filter and which metric decide. `left_out`: what cannot stand in a trial -> why."""

    strict: str
    flexible: str
    metric: str | None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Row]], outline: Outline) -> Reading:
        """By the harness's names: a filter called strict or flexible is that extraction. Without such names the
        first filter is the strict one, and the flexible one is the same.

        `exact_match` decides, else of the metrics that are one number for a document and better when higher the first
        whose numbers are all 0 or 1, one called so (`acc`, `bleu_acc`) before others; else the first one.

        Raises:
            TrialError: a number of the metric that decides is above 1, which says nothing of right and wrong.
        """
        names = list(documents[0])
        usable = [name for name in names if outline.per_answer(name)] or names
        flexible = next((name for name in usable if "flexible" in name), None)
        strict = next((name for name in usable if "strict" in name), None)
        strict = strict or next((name for name in usable if name != flexible), usable[0])
        rows = [document[strict] for document in documents]
        metrics = list(dict.fromkeys(name for row in rows for name in row.metrics()))
        numbers = [name for name in metrics if any(row.metric(name) is not None for row in rows)]
        higher = [name for name in numbers if outline.higher_is_better.get(name) is not False]
        metric = _deciding(outline.name, {name: [row.metric(name) for row in rows] for name in higher})
        left_out = {f"metric {name}": "no single number for a document" for name in metrics if name not in numbers}
        left_out |= {f"filter {name}": "of several answers together" for name in names if name not in usable}
        return cls(strict, flexible or strict, metric, left_out)


def _deciding(task: str, values: Mapping[str, Sequence[float | None]]) -> str | None:
    """Of metrics and their numbers, by document, the one that says what is right; None where there is none."""

    def rank(name: str) -> tuple[bool, bool, bool]:
        graded = all(value in (0, 1, None) for value in values[name])
        return name != _FIRST_METRIC, not graded, not name.endswith("acc")

    metric = min(values, key=rank, default=None)
    most = max((value for value in values[metric] if value is not None), default=0) if metric is not None else 0
    if most > 1:
        raise TrialError(
            f"lm-eval task `{task}`: its metric `{metric}` goes up to {most:g}, so 1 is not right by it, and no other "
            "metric is 0 or 1 for each document; choose a task that has one, such as exact_match"
        )
    return metric


def texts(row: Row, outline: Outline) -> list[str]:
    """The completions of a document, one for each repeat.

    Of a multiple choice it is the continuation that was found most likely: nothing was written.

    Raises:
        TrialError: the task measures how likely whole texts are, and has no verdict on a document.
    """
    if outline.output_type == "generate_until":
        return [str(text) for text in row.resps[0]]
    if outline.output_type == "multiple_choice":
        # With mutual information each choice comes a second time, without the question.
        choices = len(row.resps) // (2 if "acc_mutual_info" in row.metrics() else 1)
        likelihoods = [float(request[0][0]) for request in row.resps[:choices]]
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        return [str(row.arguments[f"gen_args_{best}"]["arg_1"])]
    raise TrialError(f"lm-eval task `{outline.name}` measures likelihoods and gives no answers to read")


def settings_of(suite: str, outlines: Sequence[Outline], rows: Sequence[Row], harness: str) -> dict[str, Any]:
    """What two results must have in common to be compared, as JSON values: `Suite.settings` for a bridged task.

    The prompts' hash is of turns where our engines answered, and of rendered text where the harness's models did.
    """
    return {
        "name": suite,
        "data": {
            "problems": sum(outline.effective for outline in outlines),
            "sha": _sha([(row.doc_id, row.doc_hash, row.target_hash) for row in rows]),
        },
        "prompt": {"shots": {o.name: o.shots for o in outlines}, "sha": _sha([row.prompt_hash for row in rows])},
        "decoding": {outline.name: dict(outline.generation) for outline in outlines},
        "reward": {outline.name: outline.version for outline in outlines},
        "harness": harness,
    }


def trial(sample: Sample, outline: Outline, reading: Reading, *, label: str, suite: str, suite_digest: str) -> Trial:
    """The trial of one sample."""
    row = sample.rows[reading.strict]
    problem = f"{outline.name}/{row.doc_id}"
    strict = _extracted(sample, reading.strict, outline)
    reward = _value(sample, reading.strict, reading.metric)
    outcome, reason = _verdict(sample, reading, strict, reward)
    return Trial(
        label=label,
        suite=suite,
        suite_digest=suite_digest,
        problem_id=problem,
        cluster=problem,
        sample=sample.sample,
        seed=sample.seed,
        prompt_sha=row.prompt_hash[:16],
        prompt=sample.prompt or ({"role": "raw", "content": row.prompt},),
        gold=row.target,
        prompt_tokens=sample.prompt_tokens,
        completion=sample.answer,
        finish=sample.finish or "stop",
        completion_tokens=sample.completion_tokens,
        extract=Extract(strict=strict, flexible=_extracted(sample, reading.flexible, outline)),
        reward=Rewards(strict=reward, flexible=_value(sample, reading.flexible, reading.metric)),
        outcome=outcome,
        reason=reason,
        scores=_further(sample, outline, reading),
        factors={} if suite.endswith(f":{outline.name}") else {"task": outline.name},
        seconds=sample.seconds,
    )


def _verdict(
    sample: Sample, reading: Reading, extracted: str | None, reward: float | None
) -> tuple[Outcome, str | None]:
    if sample.error is not None:
        return "ungraded", f"error: {sample.error}"
    if reward is None:
        return "ungraded", f"lm-eval gives no number for it ({reading.metric or 'no metric is one'})"
    # An answer that the harness found right stays right, though the token limit came after it: its number is kept.
    if reward >= 1:
        return "correct", None
    if sample.finish == "length" and (extracted is None or ends_with(sample.answer, extracted)):
        return "truncated", None
    return ("unparsed" if extracted is None else "wrong"), None


def _extracted(sample: Sample, name: str, outline: Outline) -> str | None:
    if sample.error is not None:
        return None
    if outline.output_type != "generate_until":
        return sample.answer
    found = sample.rows[name].filtered_resps[0]
    text = str(found[0] if isinstance(found, list) and found else found)
    return None if text == outline.fallback(name) or not text.strip() else text


def _value(sample: Sample, name: str, metric: str | None) -> float | None:
    if metric is None or sample.error is not None:
        return None
    return sample.rows[name].metric(metric)


def _further(sample: Sample, outline: Outline, reading: Reading) -> dict[str, Score]:
    """All other numbers of the document, named as the harness names them: `metric,filter`."""
    if sample.error is not None:
        return {}
    return {
        f"{metric},{name}": Score(value=value)
        for name, row in sample.rows.items()
        if outline.per_answer(name)
        for metric in row.metrics()
        if (metric, name) not in {(reading.metric, reading.strict), (reading.metric, reading.flexible)}
        and (value := row.metric(metric)) is not None
    }


def _sha(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
