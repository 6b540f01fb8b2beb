"""Runs of several suites: tables on disk, suite files, and two checkpoints that are made up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import yaml
from PIL import Image, ImageDraw

from engines.base import Engine, Generation, Request
from engines.settings import TransformersSettings
from pipelines.context import StageContext, derive_seed
from pipelines.files import write_json
from pipelines.metrics import Metrics
from pipelines.stages.evaluate import EvaluateStage
from pipelines.stop import Stop
from tasks.draw import uniform
from tests.report.runs import COLOURS, finish

CHECKPOINTS = ("base", "tuned")
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!-- & \u2028 \0"
)
"""Ends a script, starts one, loads an image, opens a comment: everything that a completion might try."""
HOSTILE_ID = "sums-7"
WORDS = ["".join(random.Random(number).choices("etaoinshrdlucmfwypvbgk", k=2 + number % 9)) for number in range(2000)]


class Writer:
    """Answers from a table of golds, right as often as the checkpoint's skill says, at some length."""

    def __init__(self, golds: Mapping[str, str], skill: float, name: str, words: int) -> None:
        self.golds, self.skill, self.name, self.words = golds, skill, name, words

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            problem = request.id.partition("#")[0]
            draw = (
                uniform(problem) + 0.4 * uniform(request.id, self.name)
            ) / 1.4  # some problems are harder than others
            answer = self.golds[problem] if draw < self.skill else "7" if draw < 0.93 else ""
            thought = " ".join(
                random.Random(f"{request.id}/{self.name}").choices(WORDS, k=int(self.words * (0.5 + draw)))
            )
            if problem == HOSTILE_ID:
                thought = HOSTILE
            text = f"{thought}\nTherefore: #### {answer}" if answer else thought
            finish = "length" if draw > 0.97 else "stop"
            yield Generation(request.id, text, tuple(range(len(text.split()))), finish, 12)

    def close(self) -> None:
        pass


class Context(StageContext):
    """A stage's context whose engine is made up."""

    def engine(self, checkpoint: str | Path) -> Engine:
        place = Path(checkpoint)
        golds, words = self.recipe.golds, self.recipe.words  # type: ignore[attr-defined]
        return Writer(golds, json.loads((place / "config.json").read_text())["skill"], place.name, words)  # type: ignore[return-value]


def make_suites(
    root: Path, sizes: Mapping[str, int], *, samples: int = 1, words: int = 12, skills: Sequence[float] = (0.6, 0.7)
) -> Path:
    """A run of `evaluate` stages: `sums` in levels, with a published figure; `shapes` with pictures; others plain."""
    root.mkdir(parents=True)
    for label, skill in zip(CHECKPOINTS, skills, strict=True):
        (root.parent / label).mkdir()
        write_json(root.parent / label / "config.json", {"skill": skill})
    stages = []
    for name, size in sizes.items():
        file, golds = _write_suite(root.parent, name, size)
        settings = EvaluateStage(
            name=name,
            suite=str(file),
            k=[1, samples] if samples > 1 else [1],
            checkpoints={label: str(root.parent / label) for label in CHECKPOINTS},
        )
        stages.append(settings)
        _run(settings, root, golds, words)
    recipe = {"name": root.name, "seed": 0, "stages": [stage.model_dump(mode="json") for stage in stages]}
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return root


def _run(settings: EvaluateStage, root: Path, golds: Mapping[str, str], words: int) -> None:
    recipe = SimpleNamespace(
        name=root.name,
        data={},
        engine=TransformersSettings(),
        model=SimpleNamespace(path=None),
        stages=[],
        golds=golds,
        words=words,
    )
    directory = root / str(settings.name)
    directory.mkdir()
    context = Context(
        recipe=recipe,  # type: ignore[arg-type]
        name=str(settings.name),
        directory=directory,
        inputs={},
        upstream=[],
        seed=derive_seed(0, str(settings.name)),
        stop=Stop(),
        metrics=Metrics(root / "metrics.jsonl"),
    )
    result = settings.run(context)
    finish(
        directory, settings.kind, 12.5, result, settings=settings.model_dump(mode="json"), versions=settings.versions()
    )


def _write_suite(folder: Path, name: str, size: int) -> tuple[Path, dict[str, str]]:
    """The suite's file, and the gold answer of each problem."""
    rows = []
    for number in range(size):
        row = {
            "id": f"{name}-{number}",
            "question": f"What is {number} + {3 * number % 17}?",
            "cluster": f"c{number % 60}",
        }
        row["answer"], row["kind"] = str(number + 3 * number % 17), f"level {1 + number % 11}"
        if name == "shapes":
            row["image"] = _draw(folder / "pictures", number // 2)  # two questions about each
            row |= {"question": f"How many shapes are in picture {number}?", "answer": "1"}
        rows.append(row)
    table = folder / f"{name}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    published = {"model": "a larger model", "value": 0.655, "metric": "accuracy", "source": "its report, table 2"}
    file = folder / f"{name}.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "summary": f"{name}, made up",
                "data": {"task": "table", "source": str(table), "columns": {"cluster": "cluster"}},
                "prompt": {"system": "You are careful & <brief>.", "after": "\nEnd with #### and the answer."},
                "answer": {"strict": "hash", "flexible": "last_number"},
                "decoding": {"max_new_tokens": 512, "temperature": 0.7},
                **({"published": published} if name == "sums" else {}),
                **({"protocol": {"points": {"first": ["level 1", "level 2"]}}} if name == "words" else {}),
            }
        )
    )
    return file, {row["id"]: row["answer"] for row in rows}


def _draw(folder: Path, number: int) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.png"
    image = Image.new("RGB", (320 + number % 7, 240), "white")
    ImageDraw.Draw(image).ellipse((40, 40, 200, 200), fill=COLOURS[number % len(COLOURS)])
    image.save(path)
    return str(path)
