"""A recipe that is wrong says so in one line, with the place, and one that is right survives being written out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from engines.base import Decoding
from engines.settings import TransformersSettings, what_matters
from pipelines.errors import RecipeError
from pipelines.recipe import Recipe, load_recipe, override_stage, validate
from pipelines.sections import fingerprint
from pipelines.source import Source
from pipelines.stages.evaluate import EvaluateStage
from pipelines.stages.generate import GenerateStage
from pipelines.stages.recur import RecurStage

GOOD = """\
name: demo
model:
  build: {hidden_size: 64}
data:
  test: {task: easy-vqa, split: test, take: 4}
stages:
  - kind: evaluate
    decoding: {max_new_tokens: 8}
  - kind: report
"""


def written(tmp_path: Path, text: str = GOOD) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path), ["seed=7", "engine.kind=vllm"])
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("before", "after", "line", "complaint"),
    [
        ("    decoding:", "    decodng:", 8, "stages.evaluate.decodng: unknown key; did you mean `decoding`?"),
        (
            "max_new_tokens",
            "max_tokens",
            8,
            "stages.evaluate.decoding.max_tokens: unknown key; did you mean `max_new_to",
        ),
        ("hidden_size: 64", "hiden_size: 64", 3, "model.build.hiden_size: unknown key; did you mean `hidden_size`?"),
        ("hidden_size: 64", "hidden_size: many", 3, "not 'many'"),
        ("kind: report", "kind: reprot", 9, "unknown kind `reprot`; did you mean `report`?"),
        ("kind: report", "name: report", 9, "needs a `kind`"),
        ("kind: report", "{kind: evaluate}", 6, "two stages are called `evaluate`"),
        ("data:", "dta:", 4, "dta: unknown key; did you mean `data`?"),
        ("  build: {hidden_size: 64}", "  path: a/b\n  build: {}", 2, "needs exactly one of `path` and `build`"),
        ("take: 4", "take: 0", 5, "data.test.take: input should be greater than or equal to 1, not 0"),
        ("take: 4", "tak: 4", 5, "data.test: `tak` is no key of task easy-vqa; did you mean `take`?"),
        ("task: easy-vqa", "task: easy-vga", 5, "data.test: no task is called 'easy-vga'; did you mean 'easy-vqa'?"),
        ("easy-vqa, split: test", "images, split: test", 5, "data.test: task images needs `folder`"),
        ("name: demo", "name: ../demo", 1, "name: use letters, digits, `-` and `_`, not '../demo'"),
        ("name: demo", "name: demo\nname: two", 2, "`name` is given twice, first on line 1"),
        ("name: demo", "name: [demo", 2, "no valid YAML"),
        ("name: demo", "name: demo\nseeds: [1, 1]", 2, "a seed is given twice"),
    ],
)
def test_mistake_is_one_line_with_its_place(tmp_path: Path, before: str, after: str, line: int, complaint: str) -> None:
    assert before in GOOD
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, GOOD.replace(before, after)))
    first = [each for each in str(caught.value).splitlines() if complaint in each]
    assert first, str(caught.value)
    assert f"recipe.yaml, line {line}: " in first[0]


def test_every_mistake_gets_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("name: demo", "nam: demo").replace("take: 4", "tak: 4, skip: -1")
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    lines = str(caught.value).splitlines()
    assert any(line.endswith("name: is missing") for line in lines)
    assert sum("nam: unknown key" in line for line in lines) == 1
    assert sum("data.test.skip: input should be greater" in line for line in lines) == 1
    assert len(lines) == 3  # `tak` may be the task's own key: the task is asked once the rest is right


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "no such recipe"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is no UTF-8 text"),
        (lambda path: path.write_text(""), "holds no mapping"),
        (lambda path: path.write_text("- a\n- b\n"), "holds no mapping"),
        (lambda path: path.write_text("a: !!python/object:os.system {}"), "no valid YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, make: object, complaint: str) -> None:
    path = tmp_path / "recipe.yaml"
    make(path)  # type: ignore[operator]
    with pytest.raises(RecipeError, match=complaint) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(RecipeError, match=r"did you mean `recipe\.yaml`"):
        load_recipe(tmp_path / "recpe.yaml")


def test_overrides_address_stages_by_name_and_read_yaml(tmp_path: Path) -> None:
    recipe = load_recipe(
        written(tmp_path),
        [
            "stages.evaluate.decoding.temperature=1e-1",
            "stages.evaluate.limit=null",
            "seeds=[0, 1]",
            "data.test.take=50",
        ],
    )
    assert recipe.stages[0].decoding.temperature == 0.1  # type: ignore[attr-defined]
    assert recipe.seeds == [0, 1]
    assert recipe.data["test"].take == 50


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("stages.evalute.limit=3", "`stages.evalute.limit=3`: stages has no `evalute`; did you mean `evaluate`?"),
        ("stages.evaluate.limt=3", "command line: stages.evaluate.limt: unknown key; did you mean `limit`?"),
        ("evaluate.limit=3", "a stage's keys stand under `stages`; write stages.evaluate.limit=3"),
        ("seed", "write key=value"),
        ("seed=[", "no valid YAML"),
        ("seed.x=1", "has no keys"),
        ("engine.kind=vlm", "engine: unknown kind `vlm`; did you mean `vllm`?"),
    ],
)
def test_mistaken_override(tmp_path: Path, override: str, complaint: str) -> None:
    text = GOOD.replace("name: demo", "name: demo\nseed: 0")
    with pytest.raises(RecipeError, match=re.escape(complaint)) as caught:
        load_recipe(written(tmp_path, text), [override])
    assert "\n" not in str(caught.value)


def test_one_key_changes_the_engine(tmp_path: Path) -> None:
    text = GOOD + "engine: {kind: transformers, batch_size: 8, dtype: bfloat16}\n"
    for overrides in (["engine.kind=vllm", "engine.max_num_seqs=4"], ["engine.max_num_seqs=4", "engine.kind=vllm"]):
        engine = load_recipe(written(tmp_path, text), overrides).engine
        assert (engine.kind, engine.dtype, engine.max_num_seqs) == ("vllm", "bfloat16", 4)  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"engine\.batch_size: unknown key"):
        load_recipe(written(tmp_path, text), ["engine.kind=vllm", "engine.batch_size=8"])


def test_elements_without_a_name_go_by_their_number() -> None:
    source = Source({"stages": [{"kind": "reinforce", "rewards": [{"reward": "number"}]}]}, "recipe.yaml")
    for key in ("stages.reinforce.rewards.0.weight", "stages[0].rewards[0].weight"):
        assert source.override([f"{key}=2"]).data["stages"][0]["rewards"] == [{"reward": "number", "weight": 2}]
    with pytest.raises(RecipeError, match="rewards has no `number`; there are: 0"):
        source.override(["stages.reinforce.rewards.number.weight=2"])


def test_override_leaves_the_source_alone(tmp_path: Path) -> None:
    source = Source.read(written(tmp_path))
    source.override(["stages.evaluate.limit=3"])
    assert isinstance(validate(source), Recipe)
    assert validate(source).stages[0].limit is None  # type: ignore[attr-defined]


def test_a_decoding_that_sets_one_key_keeps_the_stage_s_other_defaults() -> None:
    generate = GenerateStage.model_validate({"decoding": {"max_new_tokens": 1024}})
    assert generate.decoding == Decoding(1024, temperature=1.0, top_p=0.9)
    evaluate = EvaluateStage.model_validate({"decoding": {"temperature": 0.5}})
    assert evaluate.decoding == Decoding(temperature=0.5)


def test_what_changes_no_result_is_no_part_of_what_matters() -> None:
    base = what_matters(GenerateStage(name="generate"))
    assert what_matters(GenerateStage(name="generate", chunk=7)) == base
    assert what_matters(GenerateStage(name="generate", per_image=2)) != base
    assert what_matters(TransformersSettings(batch_size=1)) == what_matters(TransformersSettings())
    assert what_matters(TransformersSettings(dtype="float16")) != what_matters(TransformersSettings())
    assert "chunk" in GenerateStage(name="generate").model_dump(), "the resolved recipe still says it"


def test_a_file_is_what_is_in_it_unless_that_is_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a.csv", "question,answer\n1,2\n"), ("b.csv", "question,answer\n3,4\n")):
        (tmp_path / name).write_text(text)
    before = fingerprint(tmp_path), fingerprint(tmp_path / "a.csv")
    os.utime(tmp_path / "a.csv", (1, 1))
    assert (fingerprint(tmp_path), fingerprint(tmp_path / "a.csv")) == before
    os.utime(tmp_path / "a.csv", (2, 2))
    monkeypatch.setattr("pipelines.sections._READ_BYTES", 30)
    by_time = fingerprint(tmp_path)
    assert by_time != before[0] and fingerprint(tmp_path / "a.csv") == before[1]
    os.utime(tmp_path / "a.csv", (3, 3))
    assert fingerprint(tmp_path) != by_time
    monkeypatch.undo()
    (tmp_path / "a.csv").write_text("question,answer\n1,3\n")
    assert fingerprint(tmp_path) != before[0]
    (tmp_path / "a.csv").write_text("question,answer\n1,2\n")
    (tmp_path / "b.csv").rename(tmp_path / "c.csv")
    assert fingerprint(tmp_path) != before[0]


def test_an_arm_s_setting_leaves_the_others_to_their_defaults() -> None:
    """As on the command line: what the recipe does not give is that of the rule which the arm names."""
    stage = RecurStage.model_validate({"kind": "recur", "reasoner": {"hidden_size": 64, "heads": 4}})
    changed = override_stage(stage, [("reasoner.recurrence", "hrm")], "arms.hrm")
    written = RecurStage.model_validate(
        {"kind": "recur", "reasoner": {"hidden_size": 64, "heads": 4, "recurrence": "hrm"}}
    )
    assert isinstance(changed, RecurStage) and changed == written
    assert (changed.reasoner.layers, changed.reasoner.fast_updates, changed.reasoner.hidden_size) == (4, 2, 64)
    kept = RecurStage.model_validate({"kind": "recur", "reasoner": {"layers": 1, "hidden_size": 64, "heads": 4}})
    changed = override_stage(kept, [("reasoner.recurrence", "trm")], "arms.trm")
    assert isinstance(changed, RecurStage) and changed.reasoner.layers == 1
