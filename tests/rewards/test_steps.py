"""A step reward is known by its signature, held to its contract, and tried as training will."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards import registry
from rewards.check import check, rows_of
from rewards.contract import RewardError, score
from rewards.samples import sample_rows, steps_of
from rewards.steps import load_steps, score_steps
from rewards.template import write

STEPS = [["a", "b"], ["c"]]
FAULTS = {
    "hindsight": ("[[float(a in c)] * len(p) for c, p, a in zip(completions, steps, answer)]",
                  "what follows a step does not matter"),
    "counted": ("[[(k + 1) / len(p) for k, _ in enumerate(p)] for p in steps]", "what follows a step does not matter"),
    "silent": ("[[None] * len(p) for p in steps]", "some steps have a value"),
    "place": ("[[float(i)] * len(p) for i, p in enumerate(steps)]", "order in the batch does not matter"),
    "relative": ("[[1 / len(steps)] * len(p) for p in steps]", "neighbours in the batch do not matter"),
    "random": ("[[__import__('random').random() for _ in p] for p in steps]", "same input, same score"),
    "strings": ("[[float(isinstance(c, str))] * len(p) for c, p in zip(completions, steps)]",
                "conversations score as strings do"),
    "evaluates": ("[[float(runs(part)) for part in p] for p in steps]", "runs no code of a completion"),
    "short": ("[[1.0]] * len(steps)", "keeps its contract"),
    "flat": ("[1.0] * len(steps)", "keeps its contract"),
    "empty": ("[[1 / len(part) for part in p] for p in steps]", "keeps its contract"),
    "wants_more": ("[[1.0] * len(p) for p in steps if colour]", "columns"),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps") / "faulty.py"
    lines = [
        "def runs(text):\n    try:\n        return bool(eval(text))\n    except BaseException:\n        return False\n"
    ]
    for name, (body, _) in FAULTS.items():
        columns = "answer, colour" if name == "wants_more" else "answer"
        lines.append(f"def {name}(prompts, completions, steps, *, {columns}, **other):\n    return {body}\n")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(file: Path, name: str) -> None:
    failed = [each.check for each in check(f"{file}:{name}", sample_rows("exact_match")) if not each.ok]
    assert FAULTS[name][1] in failed


def test_the_template_passes(tmp_path: Path) -> None:
    reference = f"{tmp_path / 'new.py'}:written"
    write(reference, steps=True)
    assert all(finding.ok for finding in check(reference, sample_rows(reference)))
    assert registry.is_step_reward(reference)


def test_the_example_of_the_page_passes_and_says_what_the_page_says(tmp_path: Path) -> None:
    page = Path("docs/rewards.md").read_text().partition("## Step rewards")[2]
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    path = tmp_path / "mine.py"
    path.write_text(code)
    (tmp_path / "rows.jsonl").write_text('{"completion": "Well.\\n1+2=3. 3+4=8.\\n8+1=9", "answer": "9"}\n')
    reference = f"{path}:right_sums"
    assert all(finding.ok for finding in check(reference, rows_of(tmp_path / "rows.jsonl")))
    found = score_steps(load_steps(reference), [""], [""], [["Well.\n", "1+2=3.", " 3+4=8.\n", "8+1=9"]])
    assert found == [[None, 1.0, 0.5, pytest.approx(2 / 3)]]


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ([[1.0, 1.0]], "returned 1 lists for 2 completions"),
        ([[1.0], [1.0]], "returned 1 values for the 2 steps of completion 0"),
        ([[1.0, 1.0], [1.0, 0.0]], "returned 2 values for the 1 steps of completion 1"),
        ([[1.0, "1"], [1.0]], "returned '1' for step 1 of completion 0; a score is a number or None"),
        ([[1.0, 1.0], [float("nan")]], "returned nan for step 0 of completion 1; a score is a number or None"),
        ([None, [1.0]], "returned None for completion 0; a list with a value for each of its 2 steps belongs there"),
        ([1.0, [1.0]], "returned 1.0 for completion 0; a list"),
        (3, "raised TypeError"),
    ],
)
def test_what_breaks_the_contract_is_one_line(returned: Any, complaint: str) -> None:
    def mine(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        return returned

    with pytest.raises(RewardError) as raised:
        score_steps(mine, ["", ""], ["ab", "c"], STEPS)
    assert str(raised.value).startswith(f"step reward `mine` {complaint}") and "\n" not in str(raised.value)


def test_an_exception_names_its_line() -> None:
    def mine(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        raise KeyError("gold")

    with pytest.raises(RewardError, match=r"^step reward `mine` raised KeyError in test_steps.py, line \d+: 'gold'$"):
        score_steps(mine, ["", ""], ["ab", "c"], STEPS)


async def later(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
    return [[0.5, None], [1]]


@pytest.mark.parametrize(
    "reward",
    [
        later,
        functools.partial(lambda prompts, completions, steps, *, half, **columns: [[half, None], [1]], half=0.5),
        lambda prompts, completions, steps, **columns: (np.array([0.5, None]), torch.tensor([1])),
        lambda prompts, completions, steps, **columns: [iter((np.float32(0.5), None)), (True,)],
    ],
)
def test_values_of_every_kind_and_none_survive(reward: Any) -> None:
    assert score_steps(reward, ["", ""], ["ab", "c"], STEPS) == [[0.5, None], [1.0]]


def test_one_in_the_place_of_the_other_is_one_line(file: Path) -> None:
    with pytest.raises(RewardError, match=r"^`exact_match` takes no `steps`: it grades whole completions, and belongs"):
        load_steps("exact_match")
    with pytest.raises(RewardError, match=r"^reward `flat` takes `steps`: it is a step reward, which belongs in step_"):
        score(registry.load(f"{file}:flat"), [""], ["a"], answer=["a"])
    # A reward that reads a column of that name is one.
    assert score(registry.load(f"{file}:flat"), [""], ["a"], answer=["a"], steps=["x"]).values == [1.0]


def test_a_missing_column_is_named_and_steps_are_none(file: Path) -> None:
    assert registry.columns(f"{file}:wants_more") == ["steps", "answer", "colour"]
    with pytest.raises(RewardError, match="`wants_more` wants the column 'colour'; there are: answer"):
        score_steps(load_steps(f"{file}:wants_more"), [""], ["a"], [["a"]], answer=["a"])


def test_parts_for_the_check_are_sentences_and_lines() -> None:
    assert steps_of("One. Two!\nthree\n") == ["One. ", "Two!\n", "three\n"]
    assert steps_of("3.5") == ["Let me see.\n", "3.5"] and "".join(steps_of("")) == "Let me see.\n"


def test_kinds_are_read_and_not_run(tmp_path: Path, file: Path) -> None:
    (tmp_path / "others.py").write_text(
        "raise RuntimeError('imported')\n"
        "def tall(prompts, completions, steps, *, clue, **columns): ...\n"
        "def wide(prompts, completions, **columns): ...\n"
    )
    info = tmp_path / "others-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[trivium.rewards]\ntall = others:tall\nwide = others:wide\nfar = elsewhere.deep:far\n"
    )
    code = (
        "from rewards.registry import columns, is_step_reward as kind;"
        "print([kind(name) for name in ('tall', 'wide', 'far', 'exact_match', 'rg:NAME')], columns('tall'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
    )  # fmt: skip
    assert done.stdout.strip() == "[True, False, None, False, False] ['steps', 'clue']"
    assert registry.is_step_reward(f"{file}:flat") is True
