"""Where the paths in a suite's file lead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eval.grading import Grader, refused_golds
from eval.registry import find, with_overrides
from eval.suite_file import SuiteError, SuiteFile
from rewards.contract import RewardError
from rewards.registry import entry
from tasks.problem import Problem, TaskError


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite and its data; the command is called elsewhere, where other data have the same name."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / "shared/rows.jsonl", "beside")
    write(tmp_path / "here/rows.jsonl", "here")
    return tmp_path / "shared"


def write(path: Path, question: str) -> None:
    path.write_text(json.dumps({"question": question, "answer": "yes"}))


def suite(folder: Path, source: str, name: str = "mine.yaml") -> SuiteFile:
    data = {"task": "table", "source": source}
    (folder / name).write_text(yaml.safe_dump({"version": 1, "summary": "rows", "data": data}))
    return find(str(folder / name))


def asked(file: SuiteFile) -> list[str]:
    file.look()
    return [problem.question for problem in file.rows().problems]


def test_data_are_beside_the_file_then_where_the_command_is_called(shared: Path) -> None:
    assert asked(suite(shared, "rows.jsonl")) == ["beside"]
    assert asked(find("../shared/mine.yaml")) == ["beside"]
    write(shared.parent / "here/more.jsonl", "here alone")
    assert asked(suite(shared, "more.jsonl")) == ["here alone"]
    assert asked(suite(shared, str(shared.parent / "here/rows.jsonl"))) == ["here"]
    write(shared.parent / "above.jsonl", "above")
    assert asked(suite(shared, "../above.jsonl")) == ["above"]


def test_what_is_nowhere_is_named_with_its_place(shared: Path) -> None:
    for source in ("rwos.jsonl", "./rwos"):
        with pytest.raises(TaskError, match=f"^{shared}/rwos.*: no such file"):
            suite(shared, source).look()
    told = suite(shared, "openai/gsm8k").look()
    assert told is not None and told.startswith("openai/gsm8k is a dataset on the hub")


def test_where_a_suite_lies_makes_it_no_other_suite(shared: Path) -> None:
    first, second = suite(shared, "rows.jsonl"), suite(Path(), "rows.jsonl")
    assert (asked(first), asked(second)) == (["beside"], ["here"])
    assert first.digest == second.digest and first.suite("s", {}, 1) == second.suite("s", {}, 1)


def test_keys_of_the_command_line_are_paths_from_there(shared: Path) -> None:
    file = suite(shared, "rows.jsonl")
    assert asked(with_overrides("mine", file, {"decoding.temperature": 1.0})[1]) == ["beside"]
    write(shared.parent / "here/others.jsonl", "others here")
    write(shared / "others.jsonl", "others beside")
    assert asked(with_overrides("mine", file, {"data.source": "others.jsonl"})[1]) == ["others here"]
    with pytest.raises(SuiteError, match="unknown key"):
        with_overrides("mine", file, {"data.sources.x": 1, "promt": 2})


def test_a_factor_that_no_problem_has(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"question": "1 + 1?", "answer": "2", "level": "easy"}\n')
    data = {"task": "table", "source": str(tmp_path / "sums.jsonl")}
    suite = SuiteFile(version=1, summary="sums", data=data, factors=("level",))
    assert suite.rows().problems[0].columns["level"] == "easy"
    wrong = suite.model_copy(update={"factors": ("levle",)})
    with pytest.raises(TaskError, match=r"^factors: no problem has a column `levle`; did you mean `level`\?$"):
        wrong.rows()


def test_rewards_are_beside_the_file_then_where_the_command_is_called(shared: Path) -> None:
    def reward(path: Path, value: float) -> None:
        path.write_text(f"def close(prompts, completions):\n    return [{value}] * len(completions)\n")

    def values(file: SuiteFile) -> dict[str, object]:
        suite = file.suite("mine", {}, 1)
        grader, settings = Grader.of(suite), suite.settings([])
        (score,) = grader.reward([""], [""])
        assert settings["reward"]["name"] == file.reward
        assert settings["reward"]["version"] == entry(file.reference(file.reward)).version
        return {file.reward: score} | {name: each([""], [""])[0] for name, each in grader.also.items()}

    reward(shared / "mine.py", 0.25)
    reward(Path("mine.py"), 0.5)
    reward(Path("more.py"), 0.75)
    data = {"task": "table", "source": "rows.jsonl"}
    written = {"version": 1, "summary": "rows", "data": data, "reward": "mine.py:close", "also": ["more.py:close"]}
    (shared / "mine.yaml").write_text(yaml.safe_dump(written))
    file = find(str(shared / "mine.yaml"))
    assert values(file) == {"mine.py:close": 0.25, "more.py:close": 0.75}
    # A name that the command gives is meant from there; what it leaves alone stays beside the file.
    reward(shared / "more.py", 0.125)
    assert values(with_overrides("mine", file, {"reward": "more.py:close", "also": ["mine.py:close"]})[1]) == {
        "more.py:close": 0.75,
        "mine.py:close": 0.25,
    }
    (shared / "mine.yaml").write_text(yaml.safe_dump(written | {"reward": "nowhere.py:close"}))
    with pytest.raises(RewardError, match=f"{shared}/nowhere.py cannot be read"):
        values(find(str(shared / "mine.yaml")))


def test_a_reward_that_raises_is_told_with_the_problem() -> None:
    def picky(prompts: object, completions: list[str], answer: object, **columns: object) -> list[float | None]:
        if "3" in completions:
            raise ValueError("no\nway")
        return [1.0] * len(completions)

    problems = [Problem(f"p{n}", "?", str(n)) for n in range(5)]
    with pytest.raises(
        RewardError, match=r"^reward `picky` raised ValueError in test_suite_paths.py, line \d+: no way \(problem p3\)$"
    ):
        refused_golds(problems, picky)
