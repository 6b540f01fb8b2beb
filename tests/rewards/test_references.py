"""Rewards are named, found in files and packages, and called in every form that Python has for a function."""

from __future__ import annotations

import asyncio
import functools
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards import contract, registry
from rewards.contract import RewardError, columns_of, name_of, note, score
from rewards.pool import Pool

FILE = '''
import functools
def contains(prompts, completions, *, answer, weight=1.0, **columns):
    """1 where the gold is in the completion.

    More.
    """
    return [weight * (gold in text) for text, gold in zip(completions, answer)]
CALLS = 0
half = functools.partial(contains, weight=0.5)
async def slow(prompts, completions, **columns):
    return [0.25] * len(completions)
class Stateful:
    def __call__(self, prompts, completions, **columns):
        return [2.0] * len(completions)
stateful = Stateful()
number = 3
annotated: Stateful = Stateful()
declared: Stateful
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_a_function_of_a_file(file: Path) -> None:
    before = list(sys.path)
    reward = registry.load(f"{file}:contains")
    assert score(reward, ["", ""], ["a red one", "blue"], answer=["red", "red"]).values == [1.0, 0.0]
    assert name_of(reward) == "contains" and columns_of(reward) == ["answer"]
    assert sys.path == before
    found = registry.entry(f"{file}:contains")
    assert found.summary == "1 where the gold is in the completion."
    file.write_text(FILE + "# changed\n")
    assert registry.entry(f"{file}:contains").version != found.version


@pytest.mark.parametrize(("name", "value"), [("half", 0.5), ("slow", 0.25), ("stateful", 2.0), ("annotated", 2.0)])
def test_partials_instances_and_coroutines(file: Path, name: str, value: float) -> None:
    reward = registry.load(f"{file}:{name}")
    assert score(reward, [""], ["red"], answer=["red"]).values == [value]
    kept = pickle.loads(pickle.dumps(reward))
    assert score(kept, [""], ["red"], answer=["red"]).values == [value]


def test_a_file_reward_works_in_another_process(file: Path) -> None:
    pool = Pool(workers=1)
    try:
        reward = registry.load(f"{file}:contains", {"weight": 0.5})
        found = pool.map(score_one, [(reward,)], seconds=30)[0]
    finally:
        pool.close()
    assert found.value == [0.5]


def score_one(reward: contract.Reward) -> list[float | None]:
    return score(reward, [""], ["red"], answer=["red"]).values


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("{file}:contain", "defines no `contain`; did you mean `contains`"),
        ("{file}:number", "`number` is no function"),
        ("{folder}/none.py:contains", "cannot be read (No such file or directory)"),
        ("{folder}/broken.py:f", "is no Python"),
        ("{folder}/raises.py:f", "cannot be loaded (RuntimeError: at once, in two lines)"),
        ("{folder}/exits.py:f", "cannot be loaded (SystemExit: 3)"),
        ("{folder}/apart.py:f", "not on Python's path: install `mine`, or set PYTHONPATH={folder}"),
        ("{folder}/lacks.py:f", "cannot be loaded (ModuleNotFoundError: No module named 'nowhere')"),
        ("{file}:declared", "defines no `declared`"),
        ("mine:contains", "no reward is called `mine:contains`"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(file: Path, reference: str, complaint: str) -> None:
    (file.parent / "broken.py").write_text("def f(:\n")
    (file.parent / "raises.py").write_text("raise RuntimeError('at once,\\nin two lines')\ndef f(): ...\n")
    (file.parent / "apart.py").write_text("from mine import contains\ndef f(): ...\n")
    (file.parent / "lacks.py").write_text("import nowhere\ndef f(): ...\n")
    (file.parent / "exits.py").write_text("import sys\nsys.exit(3)\ndef f(): ...\n")
    with pytest.raises(RewardError) as raised:
        registry.load(reference.format(file=file, folder=file.parent))
    assert complaint.format(folder=file.parent) in str(raised.value) and "\n" not in str(raised.value)


def test_planning_reads_a_file_and_does_not_run_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(prompts, completions): ...\n")
    registry.entry(f"{path}:f")
    assert not (tmp_path / "ran").exists()


def test_an_entry_point_of_another_package(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(
        "def tall(prompts, completions, **columns):\n    return [3.0] * len(completions)\n"
    )
    info = tmp_path / "others-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[trivium.rewards]\ntall = others:tall\n")
    code = (
        "from rewards import registry; from rewards.contract import score;"
        "print(score(registry.load('tall'), [''], ['x']).values, registry.entry('tall').version);"
        "print('tall' in [each.name for each in registry.entries()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["[3.0] others 1.2", "True"]


@pytest.mark.parametrize(
    "body", ["def f(:\n", "raise RuntimeError('at\\nonce')\n", "raise SystemExit(3)\n", "import nowhere\n"]
)
def test_a_package_that_cannot_be_imported_is_one_line_and_hides_no_other_reward(tmp_path: Path, body: str) -> None:
    (tmp_path / "torn.py").write_text(body)
    info = tmp_path / "torn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trivium.rewards]\ntorn = torn:f\n")

    def asked(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "rewards", *command.split()],
            check=False, capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        )  # fmt: skip

    listed, shown = asked("list"), asked("show torn")
    assert listed.returncode == 0 and "torn " in listed.stdout and "vqa_accuracy" in listed.stdout
    assert shown.returncode != 0 and shown.stderr.count("\n") == 1
    assert shown.stderr.startswith("error: reward `torn` cannot be imported from torn:f (")


def test_options_are_checked(file: Path) -> None:
    with pytest.raises(RewardError, match="takes no `wieght`; did you mean `weight`"):
        registry.load(f"{file}:contains", {"wieght": 2})


@pytest.mark.parametrize("name", ["prompts", "completions", "columns", "reference"])
def test_what_a_call_brings_is_no_option(name: str, tmp_path: Path) -> None:
    path = tmp_path / "loose.py"
    path.write_text("def loose(prompts, completions, **columns):\n    return [0.0] * len(completions)\n")
    with pytest.raises(RewardError, match=f"takes no `{name}`$"):
        registry.load(f"{path}:loose", {name: 2})


def test_a_missing_column_is_named_before_the_call(file: Path) -> None:
    reward = registry.load(f"{file}:contains")
    with pytest.raises(RewardError, match="`contains` wants the column 'answer'; there are: gold"):
        score(reward, [""], ["red"], gold=["red"])


def test_columns_of_a_file_are_read_and_those_of_what_is_decorated_left_open(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import nowhere\n"
        "def plain(prompts, completions, answer, *, clue, weight=1, **columns): ...\n"
        "async def later(prompts, completions, completion_ids, gold='', *, hint=None): ...\n"
        "@nowhere.wrap\ndef wrapped(prompts, completions, answer): ...\n"
    )
    assert registry.columns(f"{path}:plain") == ["answer", "clue"]
    assert registry.columns(f"{path}:plain", {"clue": 3}) == ["answer"]
    assert registry.columns(f"{path}:later") == []
    assert registry.columns(f"{path}:wrapped") is None
    for name in ("exact_match", "sudoku_cells", "countdown"):
        assert registry.columns(name) == columns_of(registry.load(name)) != []
    with pytest.raises(RewardError, match="did you mean `sudoku`"):
        registry.columns("sudokus")


def test_an_exception_names_the_reward_and_the_cause() -> None:
    def broken(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        raise KeyError("colour")

    with pytest.raises(RewardError, match=r"reward `broken` raised KeyError in test_references.py, line \d+: 'colour'"):
        score(broken, [""], ["a"])

    def exits(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        sys.exit(3)

    with pytest.raises(RewardError, match=r"reward `exits` raised SystemExit in test_references.py, line \d+: 3$"):
        score(exits, [""], ["a"])

    def wordy(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        raise ValueError("no\nway")

    with pytest.raises(RewardError, match=r"reward `wordy` raised ValueError in .*: no way$"):
        score(wordy, [""], ["a"])


@pytest.mark.parametrize(
    "value",
    [
        "1.0", float("nan"), float("inf"), [1.0], b"1", 10**400, 1j, np.float32("nan"), np.str_("1"), np.complex64(1),
        np.ones((2, 2)), np.array("1"), torch.tensor(float("inf")), torch.ones(2, 2), torch.empty(0),
    ],
)  # fmt: skip
def test_only_finite_numbers_and_none_are_scores(value: Any) -> None:
    with pytest.raises(RewardError, match=r"for completion 0; a score is a number or None$") as raised:
        score(lambda prompts, completions, **columns: [value], [""], ["a"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "returned",
    [
        [True, 0, 0.5], [np.float32(1), np.int64(0), np.float16(0.5)], [np.bool_(1), np.bool_(0), Fraction(1, 2)],
        [torch.tensor(1), torch.tensor(False), torch.tensor(0.5, requires_grad=True)], (1, np.array(0), 0.5),
        np.array([1, 0, 0.5], np.float32), torch.tensor([1, 0, 0.5], dtype=torch.bfloat16),
    ],
)  # fmt: skip
def test_numbers_of_every_kind_are_scores(returned: Any) -> None:
    found = score(lambda prompts, completions, **columns: returned, [""] * 3, ["a"] * 3).values
    assert found == [1.0, 0.0, 0.5] and all(type(value) is float for value in found)


def test_notes_belong_to_the_call_that_made_them() -> None:
    def reward(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        for row, text in enumerate(completions):
            if text == "?":
                note(row, "unparsed")
        return [0.0] * len(completions)

    note(0, "lost")
    assert score(reward, [""] * 3, ["a", "?", "?"]).counts == {"unparsed": 2}
    assert score(reward, [""], ["a"]).notes == {}


def test_notes_of_a_coroutine() -> None:
    async def reward(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        await asyncio.sleep(0)
        note(0, "timeout")
        return [None]

    found = score(functools.partial(reward), [""], ["a"])  # type: ignore[arg-type]
    assert found.values == [None] and found.notes == {0: "timeout"}
