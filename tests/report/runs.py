"""A run directory like that of a real run: real manifests, a real evaluation of a fake engine, drawn images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from engines.base import Engine, Generation, Request, Score, ScoreRequest
from engines.settings import TransformersSettings
from pipelines.context import StageContext, derive_seed
from pipelines.files import write_json
from pipelines.manifest import Manifest, digest_of, output_files
from pipelines.metrics import Metrics
from pipelines.sections import DataSettings
from pipelines.stage import StageHandle, StageResult
from pipelines.stages.evaluate import EvaluateStage
from pipelines.stop import Stop
from tasks.problem import Problem, Rows

COLOURS = ("red", "green", "blue", "yellow", "brown", "teal")
SHAPES = ("circle", "square")
HOSTILE_ROW = 3
HOSTILE = '<script>alert("1")</script><img src=https://evil.example/x.png>'


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big") / 2**48


class Guesser:
    """Knows the answers; gives the right one with a chance that the checkpoint sets, by kind of question."""

    def __init__(self, answers: Mapping[str, Problem], skill: Mapping[str, float], name: str) -> None:
        self.answers, self.skill, self.name = answers, skill, name

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            problem = self.answers[request.id]
            draw = chance(request.id, problem.cluster)  # The same for all checkpoints: they fail on the same problems.
            skill = self.skill[problem.kind] + 0.05 * (chance(self.name, request.id) - 0.5)
            wrong = {"yes": "no", "no": "yes"}.get(problem.answer, "teal" if problem.answer != "teal" else "red")
            text = problem.answer if draw < skill else ("it is" if draw > 0.992 else wrong)
            finish = "length" if draw > 0.98 else "stop"
            yield Generation(request.id, text, (1, 2), finish, 12)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Context(StageContext):
    """A stage's context whose engine and data are given."""

    def rows(self, data: str) -> Rows:
        return self.recipe.rows  # type: ignore[attr-defined, no-any-return]

    def engine(self, checkpoint: str | Path) -> Engine:
        place = Path(checkpoint)
        skill = json.loads((place / "skill.json").read_text())
        return Guesser({p.id: p for p in self.recipe.rows.problems}, skill, place.parent.name)  # type: ignore[attr-defined]


def finish(
    directory: Path,
    kind: str,
    seconds: float,
    result: StageResult,
    inputs: Sequence[Path] = (),
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
) -> None:
    """Writes the manifest of a stage, as the runner does."""
    upstream = {path.name: path for path in inputs}
    Manifest(
        stage=directory.name,
        kind=kind,
        digest=digest_of(directory.name),
        source={"settings": settings or {"kind": kind, "select": {"score": "gain"}}, "versions": versions or {}},
        inputs={name: (Manifest.read(path) or pytest.fail()).fingerprint for name, path in upstream.items()},
        seed=derive_seed(0, directory.name),
        revision="0123abcd",
        uncommitted_changes=False,
        packages={"torch": "2.13.0"},
        device="cpu: test",
        started=f"2026-01-01T00:00:{len(list(directory.parent.iterdir())):02d}+00:00",
        seconds=seconds,
        attempts=1,
        peak_memory_mib=1800,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        dropped=dict(result.dropped),
        numbers=dict(result.numbers),
        warnings=list(result.warnings),
        files=output_files(directory),
    ).write(directory)


def draw_problems(folder: Path, images: int, each: int) -> Rows:
    """Drawn shapes with a few questions each."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for number in range(images):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % 2]
        path = folder / f"{number}.png"
        image = Image.new("RGB", (64, 64), "white")
        pen = ImageDraw.Draw(image)
        (pen.ellipse if shape == "circle" else pen.rectangle)((14, 14, 50, 50), fill=colour)
        image.save(path)
        asked = [
            (f"what color is the {shape}?", colour, "colour"),
            ("what shape is present?", shape, "shape"),
            ("is there a circle?", "yes" if shape == "circle" else "no", "yes/no"),
            ("is there a red shape?", "yes" if colour == "red" else "no", "yes/no"),
        ]
        for index, (question, answer, kind) in enumerate(asked[:each]):
            problems.append(Problem(f"q{number}-{index}", question, answer, str(path), f"image-{number}", kind))
    return Rows(problems)


def write_triads(path: Path, problems: Sequence[Problem], audit: bool) -> StageResult:
    """Triads whose scores know a little about the truth; one carries hostile text."""
    rows = []
    for number, problem in enumerate(problems):
        right = chance("right", number) < 0.8
        answer = problem.answer if right else ("no" if problem.answer == "yes" else "brown")
        # A quarter of the pairs come back exactly, as with short answers of a small model.
        agreement = 1.0 if chance("same", number) < 0.25 else chance("s", number) ** (0.4 if right else 0.8)
        gain = 2.4 * chance("g", number) - 0.6 + (0.9 if right else 0.0)
        reason = None
        if number == HOSTILE_ROW:
            agreement, gain = 1.0, 9.0  # The best, so that the gallery shows it.
        elif chance("bad", number) < 0.06:
            reason = ("unparsable", "question_is_answer", "duplicate")[number % 3]
        elif agreement < 0.72:
            reason = "below the cut"
        rows.append(
            {
                "id": f"u{number:05d}",
                "image": problem.image,
                "type": problem.kind,
                "question": HOSTILE if number == HOSTILE_ROW else problem.question,
                "answer": answer,
                "rebuilt_question": HOSTILE
                if number == HOSTILE_ROW
                else problem.question.replace("present", "in the image"),
                "rebuilt_answer": answer if agreement > 0.4 else "no",
                "sim_question": agreement,
                "sim_answer": agreement,
                "score.S": None if reason == "unparsable" else agreement,
                "score.gain": None if reason == "unparsable" else gain,
                "kept": reason is None,
                "reason": reason,
                **({"truth": right} if audit else {}),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    dropped: dict[str, int] = {}
    for row in rows:
        if row["reason"] is not None:
            dropped[str(row["reason"])] = dropped.get(str(row["reason"]), 0) + 1
    return StageResult(len(rows), len(rows) - sum(dropped.values()), dropped, {"scorer": "lexical"})


def make_run(
    root: Path,
    rows: Rows,
    pool: Sequence[Problem],
    *,
    arms: Mapping[str, float] | None = None,
    seed: int = 0,
    audit: bool = True,
    evaluate: EvaluateStage | None = None,
) -> Path:
    """tune → generate → filter → update → evaluate, with `arms`: name -> what training on it gains."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe.yaml").write_text(f"name: {root.name}\nseed: {seed}\nnote: '<b>not bold</b>'\n")
    stages: list[Path] = []

    def stage(name: str, kind: str, seconds: float, result: StageResult, *inputs: Path) -> Path:
        finish(root / name, kind, seconds, result, inputs)
        stages.append(root / name)
        return root / name

    def checkpoint(name: str, gain: float) -> None:
        skill = {kind: 0.68 + gain + 0.06 * i for i, kind in enumerate(("colour", "shape", "yes/no"))}
        (root / name / "checkpoint").mkdir(parents=True)
        write_json(root / name / "checkpoint" / "skill.json", {key: round(value, 4) for key, value in skill.items()})

    jitter = 0.01 * (chance("seed", seed) - 0.5)
    checkpoint("tune", jitter)
    tune = stage("tune", "tune", 141.2, StageResult(4120, 4120, {}, {"loss": 0.2217, "steps": 640}))
    (root / "generate").mkdir()
    (root / "generate" / "pairs.parquet").write_bytes(b"pairs")
    generate = stage("generate", "generate", 63.9, StageResult(len(pool), len(pool), {}, {}), tune)
    for arm, gain in (arms or {"": 0.04}).items():
        suffix = f"@{arm}" if arm else ""
        (root / f"filter{suffix}").mkdir()
        result = write_triads(root / f"filter{suffix}" / "triads.parquet", pool, audit)
        filtered = stage(f"filter{suffix}", "filter", 88.0, result, tune, generate)
        checkpoint(f"update{suffix}", jitter + gain)
        numbers = {"loss": 0.1432, "steps": 700}
        stage(f"update{suffix}", "update", 151.7, StageResult(4720, 4720, {}, numbers), tune, filtered)
    run_stage(evaluate or EvaluateStage(name="evaluate"), root, rows, stages, seed)
    return root


def run_stage(settings: EvaluateStage, root: Path, rows: Rows, stages: Sequence[Path], seed: int = 0) -> None:
    """Runs a gathering stage the way the runner does."""
    context = make_context(str(settings.name), root, rows, stages, seed)
    finish(context.directory, settings.kind, 41.4, settings.run(context), list(stages))


def make_context(name: str, root: Path, rows: Rows, stages: Sequence[Path], seed: int = 0) -> Context:
    """The context of a gathering stage after `stages`."""
    recipe = SimpleNamespace(
        name=root.name,
        rows=rows,
        data={"test": DataSettings(task="easy-vqa", split="test")},
        engine=TransformersSettings(),
        model=SimpleNamespace(path=None),
        stages=[],
    )
    label = f"{root.name}/" if root.name.startswith("seed-") else ""
    (root / name).mkdir(exist_ok=True)
    manifests = [(path, Manifest.read(path) or pytest.fail()) for path in stages]
    return Context(
        recipe=recipe,  # type: ignore[arg-type]
        name=name,
        directory=root / name,
        inputs={path.name: path for path in stages},
        upstream=[StageHandle(label + path.name, manifest.kind, path, manifest, seed) for path, manifest in manifests],
        seed=derive_seed(seed, name),
        stop=Stop(),
        metrics=Metrics(root / "metrics.jsonl"),
    )
