from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.trial import TrialError, count_outcomes, dump, read

LINE = {
    "label": "tune",
    "suite": "s",
    "suite_digest": "d",
    "problem_id": "p",
    "cluster": "c",
    "sample": 0,
    "seed": 1,
    "prompt_sha": "x",
    "completion": "café",
    "finish": "stop",
    "extract": {"strict": "café", "flexible": None},
    "reward": {"strict": 1.0, "flexible": None},
    "outcome": "correct",
}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_unknown_fields_survive_a_round_trip(tmp_path: Path) -> None:
    first = write(tmp_path / "a", LINE | {"judge": {"votes": [1, 0]}, "note": "ours"})
    trial = next(read(first))
    again = next(read(write(tmp_path / "b", dump(trial))))
    assert again == trial
    assert json.loads(dump(again))["judge"] == {"votes": [1, 0]}
    assert dump(again) == dump(trial)


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert len(list(read(write(tmp_path / "a", LINE, "", LINE)))) == 2


@pytest.mark.parametrize("field", [key for key in LINE if key != "label"])
def test_a_missing_field_names_line_and_field(tmp_path: Path, field: str) -> None:
    broken = {key: value for key, value in LINE.items() if key != field}
    with pytest.raises(TrialError, match=rf"line 2, field `{field}`: Field required"):
        list(read(write(tmp_path / "a", LINE, broken)))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"label": "tu', "line 2: Invalid JSON"),
        (json.dumps(LINE | {"outcome": "maybe"}), "line 2, field `outcome`"),
        (json.dumps(LINE | {"reward": {"strict": float("nan")}}), "line 2"),
        (json.dumps(LINE | {"cluster": ""}), "line 2, field `cluster`"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(TrialError, match=complaint):
        list(read(write(tmp_path / "a", LINE, line)))


def test_scores(tmp_path: Path) -> None:
    lines = [LINE | {"outcome": o} for o in ("correct", "wrong", "unparsed", "truncated", "ungraded")]
    trials = list(read(write(tmp_path / "a", *lines)))
    assert [trial.score for trial in trials] == [1.0, 0.0, 0.0, 0.0, None]
    assert set(count_outcomes(trials).values()) == {1}
