"""The `recur` stage in a recipe: trains without a model, resumes after a kill, is judged, compared and refused."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.boards import copied_line
from pipelines.recipe import load_recipe

Take = Callable[[Path], dict[str, Any]]
SUDOKU = {"task": "sudoku", "most_empty": 7, "split_by": "symmetry"}
RECUR = {
    "kind": "recur", "validation": "validation", "symmetry": "sudoku", "steps": 12, "batch_size": 16, "save_every": 1,
    "warmup_steps": 0, "reasoner": {"hidden_size": 32, "heads": 2, "updates": 2, "segments": 3},
}  # fmt: skip


def write(directory: Path, **changes: Any) -> Path:
    recipe = {
        "name": "tiny",
        "engine": {"kind": "latent"},
        "data": {
            "labelled": {**SUDOKU, "size": 40},
            "validation": {**SUDOKU, "split": "validation", "size": 10},
            "test": {**SUDOKU, "split": "test", "size": 12},
        },
        "stages": [RECUR, {"kind": "evaluate", "reward": "sudoku"}, {"kind": "report"}],
        "arms": {"plain": {"recur.reasoner": {"recurrence": "plain", "layers": 2, "hidden_size": 32, "heads": 2}}},
        **changes,
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_chain_without_a_model_resumes_and_is_judged(real_children: Any, snapshot: Take, tmp_path: Path) -> None:
    recipe = write(tmp_path)
    whole = real_children.trivium("run", recipe, "--runs", tmp_path / "whole")
    assert whole.code == 0, whole.text
    struck = real_children.trivium("run", recipe, "--runs", tmp_path / "struck", fault="kill after save", at=2)
    assert struck.code == -signal.SIGKILL, struck.text
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path / "struck")
    assert resumed.code == 0, resumed.text
    ends = [snapshot(tmp_path / each) for each in ("struck", "whole")]
    without_times = [{name: file for name, file in end.items() if "report" not in name} for end in ends]
    assert without_times[0] == without_times[1]

    run = tmp_path / "whole/tiny"
    judged = json.loads((run / "recur/segments.json").read_text())
    curves = judged["curves"]
    assert {name: len(each["accuracy"]) for name, each in curves.items()} == {"averaged": 6, "raw": 6}
    assert len(curves["raw"]["change"]) == 12 and len(curves["raw"]["settled"]) == 5
    numbers = json.loads((run / "recur/manifest.json").read_text())["numbers"]
    assert numbers["accuracy raw 3"] == curves["raw"]["accuracy"][2] and numbers["rollouts"] == 4
    assert [len(board["said"]) for board in judged["boards"]] == [6, 6]
    result = json.loads((run / "evaluate/eval.json").read_text())
    assert result["provenance"]["prompts"]["recur"] == {"reason": "a recurrent reasoner reads cells, not tokens"}
    assert [each["label"] for each in result["checkpoints"]] == ["recur", "recur@plain"]
    trials = [json.loads(line) for line in (run / "evaluate/recur/trials.jsonl").read_text().splitlines()]
    assert all(len(trial["completion"].split()) == 16 and trial["finish"] == "stop" for trial in trials)
    page = (run / "report.html").read_text()
    shown = re.findall(r"<b>Alignment (\d+)</b> · (\d+) wrong", page)
    wanted = []
    for board in judged["boards"]:
        for number in (1, 2, 4, 6):
            said, gold = (board["said"][number - 1].split(), board["answer"].split())
            wanted.append((str(number), str(sum(a != b for a, b in zip(said, gold, strict=True)))))
    assert shown == wanted and "recur@plain" in page


def test_a_result_outlives_the_settings_that_its_data_refuse(
    real_children: Any, snapshot: Take, tmp_path: Path
) -> None:
    """Before the first step nothing is there that could take the place of the old checkpoint."""
    recipe = write(tmp_path, stages=[RECUR, {"kind": "evaluate", "reward": "sudoku"}], arms={})
    command = ("run", recipe, "--runs", tmp_path / "runs")
    assert real_children.trivium(*command).code == 0

    def there() -> dict[str, Any]:
        """All but what speaks of the last command; records in any order."""
        found = snapshot(tmp_path / "runs")
        found["tiny/metrics.jsonl"].sort(key=str)
        return {name: file for name, file in found.items() if name not in ("tiny/recipe.yaml", "tiny/live.json")}

    made = there()
    refused = real_children.trivium(*command, "stages.recur.alphabet=_12345")
    assert refused.code == 2 and "is not that of a sudoku of side 4" in refused.text, refused.text
    assert there() == made
    again = real_children.trivium(*command)
    assert "recur: up to date" in again.text and "evaluate: up to date" in again.text, again.text
    struck = real_children.trivium(*command, "stages.recur.steps=15", fault="kill before", at=3)
    assert struck.code == -signal.SIGKILL and (tmp_path / "runs/tiny/recur/.before").is_dir(), struck.text
    again = real_children.trivium(*command)
    assert "recur: up to date" in again.text and there() == made, again.text
    other = real_children.trivium(*command, "stages.recur.steps=15")
    assert other.code == 0 and "recur: steps 12 -> 15" in other.text, other.text
    assert not (tmp_path / "runs/tiny/recur/.before").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.recur.steps=10", "stages.recur: steps: 10 is no whole number of rollouts of 3 steps; take 12"),
        (
            "stages=[{kind: recur, validation: validation, steps: 12, reasoner: {segments: 3}, "
            "judge_every: 5, keep: best}]",
            "judge_every 5 is more than the 4 rollouts of this training: keep: best has the last look alone",
        ),
        ("stages.recur.reasoner.headz=4", "stages.recur.reasoner.headz: unknown key; did you mean `heads`?"),
        ("stages.recur.reasoner.heads=3", "hidden_size 32 must be a multiple of 2 × heads; heads is 3"),
        (
            "stages.recur.alphabet=__1234",
            "stages.recur.alphabet: alphabet '__1234': one or more characters, all different",
        ),
        ("stages.recur.betas=[0.9, 1.0]", "stages.recur.betas.1: "),
        ("data.labelled.side=4.0", "sudoku: side is one of 4, 6, 9, not 4.0"),
        ("data.labelled.least_empty='6'", "sudoku: least_empty is a whole number, not '6'"),
        ("data.labelled.unique='no'", "sudoku: unique is true or false, not 'no'"),
        (
            "stages.recur.symmetry=maze",
            "recur.symmetry: maze: data.labelled has puzzles of the kind sudoku; give symmetry: sudoku, or none",
        ),
        (
            "data.labelled={task: maze-file, source: org/mazes}",
            "recur.symmetry: sudoku: data.labelled has puzzles of the kind maze; give symmetry: maze, or none",
        ),
        (
            "stages.recur.alphabet=_12x",
            "recur.alphabet: '_12x' has no 3, 4, which are in the grids of data.labelled; leave alphabet out",
        ),
        (
            "data.validation={task: sudoku, side: 6, size: 3}",
            "recur.validation: data.validation is of side 6, and data.labelled, which recur trains on, of side 4;",
        ),
        (
            "data.validation={task: maze-file, source: org/mazes}",
            "recur.validation: data.validation is of the kind maze, and data.labelled, which recur trains on, of the",
        ),
        ("data.test={task: sudoku, side: 9}", "evaluate: what is asked is of side 9, and data.labelled, which recur"),
        (
            "stages.evaluate={kind: evaluate, suite: maze-easy}",
            "evaluate: what is asked is of the kind maze, and data.labelled, which recur trains on, of the kind sudoku",
        ),
        ("stages.recur.validation=validaton", "needs `data.validaton`, which the recipe does not have"),
        (
            "stages=[{kind: tune}]",
            "stages.tune: needs a model to start from; give the recipe model.path",
        ),
    ],
)
def test_mistakes_are_lines_of_the_plan(real_children: Any, tmp_path: Path, override: str, said: str) -> None:
    arms: dict[str, Any] = {}
    planned = real_children.trivium("run", write(tmp_path, arms=arms), "--runs", tmp_path, override, "--plan")
    assert planned.code == 2 and said in " ".join(planned.text.split()), planned.text


@pytest.mark.parametrize("asked", ["stages=[{kind: evaluate, suite: maze-easy}]", "data.test={task: maze, size: 3}"])
def test_rules_of_another_puzzle_are_a_line_of_the_plan(asked: str, real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, arms={}, stages=[{"kind": "evaluate", "reward": "maze_grid"}])
    stop = "engine.early_stop=sudoku"
    planned = real_children.trivium("run", recipe, "--runs", tmp_path, asked, stop, "--plan")
    said = "engine.early_stop: sudoku stops by the rules of that puzzle, and evaluate asks puzzles of the kind maze"
    assert planned.code == 2 and said in " ".join(planned.text.split()), planned.text
    kept = real_children.trivium("run", recipe, "--runs", tmp_path, "stages.evaluate.reward=sudoku", stop, "--plan")
    assert kept.code == 0, kept.text


def test_grids_of_which_too_little_is_known_are_no_line_of_the_plan(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, arms={}, engine={"kind": "latent", "early_stop": "sudoku"})
    for data in (
        "data.labelled={task: sudoku-file, source: org/puzzles}",
        "data.labelled={task: table, source: org/puzzles}",
        "data.validation={task: sudoku-file, source: org/puzzles}",
    ):
        settings = [data, "stages.recur.alphabet=_1234"]
        planned = real_children.trivium("run", recipe, "--runs", tmp_path, *settings, "--plan")
        assert planned.code == 0, planned.text


def test_where_no_look_solves_a_board_the_stage_says_so(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, arms={}, stages=[{**RECUR, "steps": 6, "judge_every": 1, "keep": "best"}])
    done = real_children.trivium("run", recipe, "--runs", tmp_path, "data.labelled.split_by=clues")
    assert done.code == 0, done.text
    manifest = json.loads((tmp_path / "tiny/recur/manifest.json").read_text())
    assert manifest["numbers"]["kept step"] in (3, 6)
    assert manifest["warnings"] == [
        "symmetry: data.labelled parts its splits by clues, and copies of its puzzles may be those of another split; "
        "give each section split_by: symmetry",
        "keep: best: no look solved a board of data.validation; the weights with most right cells were kept, of step "
        f"{manifest['numbers']['kept step']}",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.validation={task: 'rg:chain_sum', size: 3}", "data.validation: none of 3 problems is a grid"),
        ("data.labelled={task: 'rg:chain_sum', size: 5}", "none of 5 problems is a grid with an answer of its size; "),
        ("stages.recur.alphabet=_12345", "alphabet '_12345' is not that of a sudoku of side 4"),
    ],
)
def test_data_that_are_no_boards_end_in_one_line(real_children: Any, tmp_path: Path, override: str, said: str) -> None:
    done = real_children.trivium("run", write(tmp_path, arms={}), "--runs", tmp_path, override)
    assert done.code == 2 and said in " ".join(done.text.split()), done.text
    assert "Traceback" not in done.text


def test_rows_that_are_left_out_are_counted_and_give_a_reasoner_no_shape(real_children: Any, tmp_path: Path) -> None:
    """Of the training data, one whose answer is too long, and a board that the alphabet does not have; of a validation
    file, those that are no puzzles."""
    solution = "1234341221434321"
    board = {"question": f"_{solution[1:]}", "answer": solution}
    rows = [board, {**board, "answer": f"{solution}1"}, {"question": "_56" * 12, "answer": "156" * 12}, board]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    puzzles = [f".{solution[1:]},{solution}", "123,123", "alone", f"{'.' * 16},{solution}"]
    (tmp_path / "unseen.csv").write_text("\n".join(["question,answer", *puzzles]) + "\n")
    stage = {**RECUR, "alphabet": "_1234", "symmetry": "none", "batch_size": 2}
    data = {
        "labelled": {"task": "table", "source": str(tmp_path / "train.jsonl")},
        "validation": {"task": "sudoku-file", "source": str(tmp_path / "unseen.csv")},
    }
    recipe = write(tmp_path, arms={}, stages=[stage], data=data)
    done = real_children.trivium("run", recipe, "--runs", tmp_path)
    assert done.code == 0, done.text
    manifest = json.loads((tmp_path / "tiny/recur/manifest.json").read_text())
    assert manifest["dropped"] == {"answer_of_another_size": 1, "no_grid": 1}
    assert json.loads((tmp_path / "tiny/recur/checkpoint/config.json").read_text())["seq_len"] == 16
    reasons = ("other number of fields (line 4)", "several solutions (line 5)", "wrong length (line 3)")
    assert manifest["warnings"] == [
        f"data.validation: 1 of 4 boards are left out of the validation: {reason}" for reason in reasons
    ]
    larger = ("data.labelled={task: sudoku, side: 6, size: 9}", "stages.recur.alphabet=_123456", "name=larger")
    small = real_children.trivium("run", recipe, "--runs", tmp_path, *larger)
    said = "data.validation: boards of 16 cells, and those of data.labelled have 36; a reasoner is judged on"
    assert small.code == 2 and said in " ".join(small.text.split()), small.text


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        ((), False),
        (("data.labelled.split_by=clues",), True),
        (("data.labelled.split_by=null",), True),
        (("data.labelled.split_by=null", "stages.recur.symmetry=none"), False),
        (("data.labelled={task: sudoku, side: 6, level: hard}",), False),
        (("data.labelled={task: maze, side: 6}", "stages.recur.symmetry=maze"), False),
        (("data.labelled={task: sudoku-file, source: org/puzzles}",), False),  # of which nothing is known
    ],
)
def test_copies_that_may_be_test_puzzles_are_warned_of(overrides: tuple[str, ...], warned: bool) -> None:
    recipe = load_recipe(Path("recipes/reasoner-6x6.yaml"), overrides)
    stage: Any = recipe.stages[0]
    said = copied_line(recipe, stage)
    assert (said is not None) == warned
    assert said is None or said.startswith("symmetry: data.labelled parts its splits by clues")
