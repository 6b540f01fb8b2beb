"""The check passes what ships, and finds each fault that a reward can have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewards.check import check, rows_of
from rewards.contract import RewardError
from rewards.registry import entries
from rewards.samples import SAMPLES, sample_rows
from rewards.template import write

FAULTS = {
    "constant": ("return [1.0] * len(completions)", "corrupted answers score less"),
    "all_none": ("return [None] * len(completions)", "right answers are scored"),
    "backwards": ("return [float(a not in c) for c, a in zip(completions, answer)]", "no corrupted answer scores more"),
    "uneven": ("return [(a in c) / len(a) for c, a in zip(completions, answer)]", "right answers score the maximum"),
    "place": ("return [float(a in c) * (i + 1) for i, (c, a) in enumerate(zip(completions, answer))]",
              "order in the batch does not matter"),
    "relative": ("return [float(a in c) / len(completions) for c, a in zip(completions, answer)]",
                 "neighbours in the batch do not matter"),
    "random": ("import random; return [random.random() for c in completions]", "same input, same score"),
    "strings": ("return [float(a in c) if isinstance(c, str) else 0.0 for c, a in zip(completions, answer)]",
                "conversations score as strings do"),
    "evaluates": ("""
    def run(text):
        try:
            return eval(text) == 1
        except BaseException:
            return False
    texts = [c if isinstance(c, str) else c[-1]['content'] for c in completions]
    return [float(t == a or run(t)) for t, a in zip(texts, answer)]""", "runs no code of a completion"),
    "too_few": ("return [1.0]", "keeps its contract"),
    "raises": ("return [float(c) for c in completions]", "keeps its contract"),
    "wants_more": ("return [1.0 for _ in colour]", "columns"),
    "hangs": ("import time; time.sleep(60)", "returns in time"),
    "exits": ("import os; os._exit(3)", "returns in time"),
    "exits_politely": ("raise SystemExit(3)", "keeps its contract"),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "faulty.py"
    lines = []
    for name, (body, _) in FAULTS.items():
        columns = "answer, colour" if name == "wants_more" else "answer"
        lines.append(f"def {name}(prompts, completions, *, {columns}, **other):\n    {body}\n")
    lines.append(
        "def make():\n    return lambda prompts, completions, **columns: [1.0] * len(completions)\nclosure = make()\n"
    )
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_ships_passes(name: str) -> None:
    assert [finding for finding in check(name, sample_rows(name)) if not finding.ok] == []


def test_every_builtin_has_rows_of_its_own() -> None:
    asking_a_model = {"triad_consistency", "visual_gain"}
    assert {entry.name for entry in entries() if isinstance(entry.version, int)} == set(SAMPLES) | asking_a_model


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(file: Path, name: str) -> None:
    seconds = 3.0 if name == "hangs" else 60.0
    failed = [
        finding.check
        for finding in check(f"{file}:{name}", sample_rows("exact_match"), seconds=seconds)
        if not finding.ok
    ]
    assert FAULTS[name][1] in failed


def test_a_file_runs_where_it_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "imported.py"
    path.write_text("while True:\n    pass\ndef mine(prompts, completions, **columns):\n    return []\n")
    found = check(f"{path}:mine", sample_rows("exact_match"), seconds=2)
    assert [(finding.check, finding.ok) for finding in found] == [("returns in time", False)]
    path.write_text("import no_such_package\ndef mine(prompts, completions, **columns):\n    return []\n")
    with pytest.raises(RewardError, match="cannot be loaded"):
        check(f"{path}:mine", sample_rows("exact_match"))
    with pytest.raises(RewardError, match="takes no `targett`; did you mean `target`"):
        check("short", sample_rows("short"), {"targett": 3})


def test_the_template_passes_and_nothing_is_overwritten(tmp_path: Path) -> None:
    reference = f"{tmp_path / 'new.py'}:contains"
    write(reference)
    assert all(finding.ok for finding in check(reference, sample_rows(reference)))
    with pytest.raises(RewardError, match="exists already"):
        write(reference)


def test_a_user_s_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"answer": "72", "question": "?"}, {"answer": "#### 8", "completion": "<answer>8</answer>"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert all(finding.ok for finding in check("number", rows_of(path)))
    # With word answers the reward cannot score what is called right: that is found before anything is trained.
    path.write_text(json.dumps({"answer": "a word"}))
    assert "right answers are scored" in [finding.check for finding in check("number", rows_of(path)) if not finding.ok]


@pytest.mark.parametrize(
    ("line", "complaint"), [("[1]", "line 1: not a JSON object"), ('{"a": 1}', "line 1"), ("x", "line 1")]
)
def test_rows_that_cannot_be_used(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(RewardError, match=complaint):
        rows_of(path)
    with pytest.raises(RewardError, match="cannot be read"):
        rows_of(tmp_path / "none.jsonl")
