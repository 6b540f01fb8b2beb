"""What comes over the bridge: trials, what they have in common with others, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.bridge.rows import Outline, Row
from eval.bridge.verdicts import Reading, Sample, settings_of, texts, trial
from eval.suite import digest
from eval.trial import Trial

PREFIX = "lm-eval:"
"""Before the name of a suite that is a task of the harness."""


@dataclass(frozen=True, slots=True)
class BridgeResult:
    """Trials of one checkpoint.

    `settings` are what two results must share to be compared (`Suite.settings`), without the engine; their digest is
    each trial's `suite_digest`. `provenance`, in JSON values: versions, documents used and all there are, the hash of
    the chat template, which filter and metric decide, what was left out and why, and the harness's own numbers.
    """

    trials: list[Trial]
    settings: dict[str, Any]
    provenance: dict[str, Any]


def put_together(
    found: Sequence[tuple[Outline, Sequence[Mapping[str, Row]], Sequence[Sample]]],
    *,
    name: str,
    label: str,
    harness: str,
    template_sha: str | None,
    more: Mapping[str, Any],
) -> BridgeResult:
    """The result of some tasks: for each its outline, its documents (rows by filter) and the answers to them.

    Args:
        name: of the task, or of the group that they are.
        harness: the version of lm_eval.
        more: further provenance, in JSON values.
    """
    suite = PREFIX + name
    outlines = [outline for outline, _, _ in found]
    first = [next(iter(document.values())) for _, documents, _ in found for document in documents]
    settings = settings_of(suite, outlines, first, harness)
    trials: list[Trial] = []
    tasks: dict[str, Any] = {}
    for outline, documents, samples in found:
        reading = Reading.of(documents, outline)
        answers = sum(len(texts(next(iter(document.values())), outline)) for document in documents)
        ungraded = f"{answers - len(samples)} of {answers} answers: lm-eval grades the first of each document"
        repeats = {"repeats": ungraded} if answers > len(samples) else {}
        trials += [
            trial(sample, outline, reading, label=label, suite=suite, suite_digest=digest(settings))
            for sample in samples
        ]
        tasks[outline.name] = {
            "version": outline.version,
            "n_shot": outline.shots,
            "n_samples": {"original": outline.original, "effective": outline.effective},
            "output_type": outline.output_type,
            "generation_kwargs": dict(outline.generation),
            "filters": {"strict": reading.strict, "flexible": reading.flexible},
            "metric": reading.metric,
            "left_out": {**reading.left_out, **repeats},
            "reported": dict(outline.reported),
        }
    provenance = {
        "lm_eval_version": harness,
        "tasks": tasks,
        "partial": any(outline.effective < outline.original for outline in outlines),
        "chat_template_sha": template_sha,
        **more,
    }
    return BridgeResult(trials, settings, provenance)
