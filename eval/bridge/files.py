"""Folders that the harness wrote: `results_*.json` beside `samples_TASK_*.jsonl`. Needs neither lm_eval nor torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from eval.bridge.result import BridgeResult, put_together
from eval.bridge.rows import Outline, Row, grouped
from eval.bridge.verdicts import Sample, texts
from eval.trial import TrialError


def read_results(folder: Path, *, label: str | None = None) -> BridgeResult:
    """The trials of one run of the harness that was made with `--log_samples`, whichever model answered.

    Args:
        folder: where it wrote, or a folder around it that holds no other results; or one `results_*.json`.
        label: the checkpoint's name; by default the one that the results have.

    The harness does not write down how an answer ended: `finish` reads `stop`, and none is found truncated. It grades
    the first of several repeats; the others are left out, and counted in the provenance.

    Raises:
        TrialError: no results or several, a file that is cut or malformed (names the line), documents that differ
            between filters, or a task that has no answers.
    """
    path = _results_file(folder)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise TrialError(f"{path}: cannot be read as JSON ({error})") from error
    found: list[tuple[Outline, list[dict[str, Row]], list[Sample]]] = []
    try:
        seed = results["config"].get("random_seed") or 0
        named = str(results.get("model_name") or results["config"]["model"])
        outlines = [Outline.of(results, task) for task in results["configs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise TrialError(f"{path}: no results of lm-evaluation-harness, `{error}` is missing or malformed") from error
    if not outlines:
        raise TrialError(f"{path}: holds the results of no task")
    for outline in outlines:
        file = path.with_name(f"samples_{outline.name}_{path.stem.rpartition('_')[2]}.jsonl")
        if not file.is_file():
            raise TrialError(f"{file}: no such file; run lm-eval with --log_samples")
        documents = grouped(_rows(file), str(file))
        if len(documents) != outline.effective:
            raise TrialError(f"{file}: {len(documents)} documents, but the results speak of {outline.effective}")
        found.append((outline, documents, [_sample(document, outline, seed) for document in documents]))
    return put_together(
        found,
        name=outlines[0].name if len(outlines) == 1 else "+".join(sorted(outline.name for outline in outlines)),
        label=label or named,
        harness=str(results.get("lm_eval_version", "unknown")),
        template_sha=results.get("chat_template_sha"),
        more={"model": results["config"].get("model"), "finish": "not recorded by lm-eval, shown as `stop`"},
    )


def _results_file(folder: Path) -> Path:
    if folder.is_file():
        return folder
    files = sorted(folder.rglob("results_*.json"))
    if not files:
        raise TrialError(f"{folder}: no results_*.json of lm-evaluation-harness in it")
    if len(files) > 1:
        raise TrialError(f"{folder}: {len(files)} results, {files[0].name} the first; name the file of one of them")
    return files[0]


def _rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                # Not Pydantic's own reader: it refuses the NaN that the harness writes for an undefined metric.
                row = Row.model_validate(json.loads(line))
                row.prompt  # noqa: B018
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise TrialError(f"{file}, line {number}, field `{field}`: {first['msg']}") from error
            except KeyError as error:
                raise TrialError(f"{file}, line {number}, field `arguments`: no {error}") from error
            except ValueError as error:
                raise TrialError(f"{file}, line {number}: no JSON ({error})") from error
            yield row


def _sample(document: dict[str, Row], outline: Outline, seed: int) -> Sample:
    return Sample(document, 0, texts(next(iter(document.values())), outline)[0], seed=seed)
