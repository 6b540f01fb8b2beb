"""What the harness says of one document, under one of its filters: a line of `samples_TASK_*.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eval.trial import TrialError

INVALID = "[invalid]"
"""What the harness's regular expressions give where nothing matches, unless a task names another `fallback`."""
_OVER_SAMPLES = frozenset({"majority_vote", "take_first_k"})


class Row(BaseModel):
    """One line; the values of the metrics are its extra fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    doc_id: int
    target: str
    arguments: dict[str, dict[str, Any]]
    """By request, `gen_args_0` first: `arg_0` is the prompt, `arg_1` the decoding or the continuation."""
    resps: list[list[Any]] = Field(min_length=1)
    """By request: a text for each repeat, or for each a pair (log-likelihood, whether it is the greedy choice)."""
    filtered_resps: list[Any]
    filter: str
    doc_hash: str
    prompt_hash: str
    target_hash: str

    @property
    def prompt(self) -> str:
        """The first request's prompt."""
        return str(self.arguments["gen_args_0"]["arg_0"])

    def metric(self, name: str) -> float | None:
        """A metric's value; None where it is no single finite number."""
        value = (self.model_extra or {}).get(name)
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return float(value)
        return None

    def metrics(self) -> list[str]:
        """The names of the metrics, in the harness's order."""
        return [name for name in self.model_extra or {} if name not in ("doc", "metrics")]


@dataclass(frozen=True, slots=True)
class Outline:
    """What the harness says of a task beside its documents.

    `filters` maps the name of a filter to its functions, each with its `function` and settings.
    """

    name: str
    version: str
    shots: int
    output_type: str
    original: int
    effective: int
    filters: Mapping[str, Sequence[Mapping[str, Any]]]
    generation: Mapping[str, Any]
    higher_is_better: Mapping[str, bool | None]
    reported: Mapping[str, Any]
    """Its own numbers, by metric and filter."""

    @classmethod
    def of(cls, results: Mapping[str, Any], task: str) -> Outline:
        """From the harness's results, as JSON values. Raises `KeyError` for a field that is not there."""
        config = results["configs"][task]
        counts = results["n-samples"][task]
        return cls(
            name=task,
            version=str(results["versions"][task]),
            shots=results["n-shot"][task],
            output_type=config["output_type"],
            original=counts["original"],
            effective=counts["effective"],
            filters={each["name"]: each["filter"] for each in config.get("filter_list", [])},
            generation=config.get("generation_kwargs") or {},
            higher_is_better=results["higher_is_better"][task],
            reported={key: value for key, value in results["results"][task].items() if "," in key},
        )

    def per_answer(self, name: str) -> bool:
        """Whether a filter reads one answer, and not several together. One that the task does not name reads the
        first."""
        return not any(each.get("function") in _OVER_SAMPLES for each in self.filters.get(name, ()))

    def fallback(self, name: str) -> str:
        """What a filter gives where it finds nothing."""
        return next((str(each["fallback"]) for each in self.filters.get(name, ()) if "fallback" in each), INVALID)


def grouped(rows: Iterable[Row], where: str) -> list[dict[str, Row]]:
    """The rows of each document, by filter, in the order in which documents first occur.

    Raises:
        TrialError: a document comes twice under one filter, or its filters did not see the same completions.
    """
    documents: dict[int, dict[str, Row]] = {}
    for row in rows:
        document = documents.setdefault(row.doc_id, {})
        if row.filter in document:
            raise TrialError(f"{where}: document {row.doc_id} comes twice under the filter `{row.filter}`")
        if document and next(iter(document.values())).resps != row.resps:
            raise TrialError(f"{where}: document {row.doc_id} has other completions under `{row.filter}`; two runs?")
        document[row.filter] = row
    filters = {name for document in documents.values() for name in document}
    for number, document in documents.items():
        if missing := filters - document.keys():
            raise TrialError(f"{where}: document {number} has no line under the filter `{sorted(missing)[0]}`")
    return list(documents.values())
