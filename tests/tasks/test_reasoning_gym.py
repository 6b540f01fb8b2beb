"""reasoning-gym as tasks: splits that share nothing, the same problems everywhere, mistakes told in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest

from pipelines.sections import DataSettings
from tasks import gym_package, packages, reasoning_gym, registry
from tasks.gym_entry import packed, unpacked
from tasks.problem import Problem, TaskError

pytest.importorskip("reasoning_gym")
EASY = {"min_trials": 3, "max_trials": 6}


def problems(task: str, split: str = "train", **options: object) -> Sequence[Problem]:
    return registry.load(task, split, **options).problems  # type: ignore[arg-type]


def test_splits_share_no_question_for_any_size_and_seed() -> None:
    drawn = {
        (split, size, seed): {
            p.id: " ".join(p.question.split())
            for p in problems("rg:chain_sum", split, size=size, seed=seed, max_terms=2)
        }
        for split in reasoning_gym.SPLITS
        for size, seed in ((20, 0), (150, 0), (150, 1), (60, 7))
    }
    for (a, first), (b, second) in combinations(drawn.items(), 2):
        if a[0] != b[0]:
            assert set(first).isdisjoint(second) and set(first.values()).isdisjoint(second.values()), (a, b)
    assert all(len(found) == size for (_, size, _), found in drawn.items())
    # A larger size goes on where the smaller one ended; another seed draws others.
    assert list(drawn["test", 150, 0])[:20] == list(drawn["test", 20, 0])
    assert drawn["train", 150, 0] != drawn["train", 150, 1]


def test_numbers_of_a_game_in_another_order_are_the_same_problem() -> None:
    def key(numbers: list[int], target: int) -> str:
        return reasoning_gym.canonical("countdown", {"metadata": {"numbers": numbers, "target": target}})

    assert key([3, 5, 7], 22) == key([7, 3, 5], 22) != key([3, 5, 7], 21)


@pytest.mark.parametrize("dataset", ["ransom_note", "list_functions"])
def test_the_same_problems_in_every_process(dataset: str) -> None:
    """These walk through sets of texts, or draw from the random module's own generator."""
    code = (
        "from tasks.registry import load;"
        f"print([(p.id, p.answer, p.columns) for p in load('rg:{dataset}', size=12).problems])"
    )
    written = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert written[0] == written[1] and dataset.encode() in written[0]


def test_a_space_that_is_too_small_is_one_line_and_repeats_are_counted() -> None:
    found = registry.load("rg:coin_flip", size=25, **EASY)
    assert len({p.question for p in found.problems}) == 25 and dict(found.dropped)["duplicate"] > 0
    with pytest.raises(TaskError, match=r"split train: [\d,]+ draws gave \d+ different problems, not 500"):
        problems("rg:coin_flip", **EASY)


def test_problems_without_an_answer_to_give_are_counted() -> None:
    """Two signs may cancel."""
    found = registry.load("rg:ab", size=10, length=2)
    assert dict(found.dropped)["no_answer"] > 0 and all(p.answer for p in found.problems)


def test_columns_of_our_own_rewards() -> None:
    one = problems("rg:countdown", size=1, min_numbers=3, max_numbers=3)[0]
    entry = json.loads(one.columns["entry"])
    assert entry["settings"] == {"min_numbers": 3, "max_numbers": 3} and entry["dataset"] == "countdown"
    assert len(one.columns["numbers"]) == 3 and str(one.columns["target"]) in one.question
    assert one.cluster == one.id and one.kind == "countdown" and one.image is None
    grid = problems("rg:mini_sudoku", size=1)[0]
    assert grid.columns["puzzle"].replace("0", "_") in grid.question


def test_problems_of_one_template_are_one_cluster() -> None:
    """`variables` name the blanks of a template: two of one template have the same, those of others differ mostly."""
    found = problems("rg:gsm_symbolic", size=60)
    blanks: dict[str, set[frozenset[str]]] = {}
    for one in found:
        entry = json.loads(one.columns["entry"])["entry"]
        blanks.setdefault(one.cluster, set()).add(frozenset(entry["metadata"]["variables"]))
    assert all(len(each) == 1 for each in blanks.values())
    assert len({names for each in blanks.values() for names in each}) <= len(blanks) < len(found)
    boards = problems("rg:arc_agi", size=4)
    tasks = [json.loads(one.columns["entry"])["entry"]["metadata"]["task_id"] for one in boards]
    assert [one.cluster for one in boards] == [f"arc_agi-template-{task}" for task in tasks]


def test_what_is_read_of_the_package_is_what_it_has() -> None:
    import reasoning_gym as package  # noqa: F401  (registers the datasets)
    from reasoning_gym.factory import DATASETS

    assert set(gym_package.modules()) == set(DATASETS) - {"composite"}  # a mixture of others: name these instead
    for name in gym_package.modules():
        make, config = DATASETS[name]
        outline = gym_package.outline(name)
        assert outline.module == make.__module__
        assert set(outline.settings) == {field.name for field in dataclasses.fields(config)} - gym_package.COMMON, name


def test_entries_come_back_from_json() -> None:
    entry = {"grid": ((1, 2), [3]), "map": {1: "a", (0, 1): {"b": None}}, "x": [1.5, True]}
    assert unpacked(json.loads(json.dumps(packed(entry)))) == entry


@pytest.mark.parametrize(
    ("task", "options", "complaint"),
    [
        ("rg:countdwn", {}, "no dataset `countdwn`; did you mean `countdown`"),
        ("rg:zzz", {}, "no dataset `zzz`; there are: ab, acre, "),
        ("rg:countdown", {"min_number": 3}, "`min_number` is no key of task rg:countdown; did you mean `min_numbers`"),
        ("rg:countdown", {"sizes": 3}, "did you mean `size`"),
        ("rg:countdown", {"min_numbers": 9}, "rg:countdown: max_numbers must be >= min_numbers"),
        ("rg:countdown", {"min_numbers": "a"}, "rg:countdown: '>' not supported"),
        ("rg:countdown", {"min_numbers": {1}}, "numbers, texts, lists and mappings"),
        ("rg:countdown", {"size": "many"}, "size is a whole number of 1 or more, not 'many'"),
        ("rg:countdown", {"seed": -1}, "seed is a whole number of 0 or more"),
        ("rg:countdown", {"split": "dev"}, "no split 'dev'; it has train, validation, test"),
        ("rg:countdown", {"size": 10, "take": 11}, "skip 0 and take 11 asks for more than its 10 problems"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(task: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DataSettings(task=task, **options).check()  # type: ignore[arg-type]


def test_a_plan_imports_no_part_of_the_package() -> None:
    code = (
        "import sys; from pipelines.sections import DataSettings;"
        "DataSettings(task='rg:countdown', size=30, take=20, min_numbers=3).check();"
        "assert not {'reasoning_gym', 'sympy', 'matplotlib', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_slice_and_the_fingerprints_of_a_section() -> None:
    whole = DataSettings(task="rg:mini_sudoku", size=8)
    cut = DataSettings(task="rg:mini_sudoku", size=8, skip=2, take=3)  # type: ignore[call-arg]
    assert [p.id for p in cut.load().problems] == [p.id for p in whole.load().problems][2:5]
    assert cut.files() == {}


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for each in (packages.folder, gym_package.modules, gym_package.outline):
        each.cache_clear()
    try:
        with pytest.raises(TaskError, match=r"pip install 'trivium-reasoning\[reasoning-gym\]'"):
            registry.check_options("rg:countdown", {})
    finally:
        for each in (packages.folder, gym_package.modules, gym_package.outline):
            each.cache_clear()
