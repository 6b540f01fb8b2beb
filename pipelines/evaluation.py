"""The result of an evaluation, `eval.json`: how it is put together, and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipelines import prompts
from pipelines.checkpoints import Checkpoint, chat_template, hub_commit, iterations_of, layers_of, root_of
from pipelines.errors import RunError
from pipelines.files import whole, write_json
from pipelines.machine import Spent, provenance
from pipelines.manifest import Manifest, digest_of, finished_stages, output_files
from pipelines.metrics import METRICS_FILE, Metrics
from pipelines.stage import Number

if TYPE_CHECKING:
    from engines.base import Message
    from eval.compare import Comparison, Evaluated
    from eval.suite import Suite
    from tasks.problem import Problem

TRIALS_FILE = "trials.jsonl"
RESULT_FILE = "eval.json"
KINDS = ("evaluate", "rescore")
"""Stages that write a result."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished evaluation: the stage's name, its directory, and `eval.json`."""

    name: str
    directory: Path
    result: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The suite's settings, by which results are compared."""
        return {key: value for key, value in self.result["suite"].items() if key != "digest"}

    @property
    def timing(self) -> Mapping[str, float | None]:
        """Checkpoint -> seconds of generation for one answer, at the batch size of that run.

        Of the run's metrics, not of the result: a result that is made twice is the same file.
        """
        return {
            each["answers_of"]: each["seconds"]
            for each in Metrics(self.directory.parent / METRICS_FILE).read()
            if each["stage"] == self.directory.name and "answers_of" in each
        }

    @property
    def reference(self) -> str | None:
        """The suite as it was named, or None where a section of a recipe was asked."""
        found = self._manifest.source.get("settings", {}).get("suite")
        return found if isinstance(found, str) else None

    @property
    def fingerprint(self) -> str:
        """Identity of its outputs."""
        return self._manifest.fingerprint

    @property
    def limited(self) -> bool:
        """Whether `limit` made it partial, and not rows that cannot be used."""
        limit = self._manifest.source["settings"].get("limit")
        return bool(self.result["partial"]) and limit == self.result["problems"]["used"]

    @property
    def _manifest(self) -> Manifest:
        manifest = Manifest.read(self.directory)
        assert manifest is not None
        return manifest

    def is_of(self, suite: str) -> bool:
        """Whether this is what a user calls so: the suite's name, its file, or the stage."""
        own = self.result["suite"]["name"]
        return suite in (own, self.name) or (Path(suite).stem == own.partition("+")[0] and "/" in suite)

    def evaluated(self) -> list[Evaluated]:
        """Each checkpoint with its trials. Raises `TrialError` where a file of them cannot be read."""
        from eval.compare import Evaluated
        from eval.trial import read

        loops = self.result["provenance"].get("iterations", {})
        return [
            Evaluated(each["label"], self.settings, list(read(self.directory / each["file"])), loops.get(each["label"]))
            for each in self.result["checkpoints"]
        ]


def stored(run: Path) -> list[Stored]:
    """The finished evaluations of a run's directory, in order of time; of one with `seeds:`, those of all seeds."""
    found = []
    for stage in finished_stages(run):
        manifest = Manifest.read(stage)
        result = stage / RESULT_FILE
        if manifest is not None and manifest.kind in KINDS and result.is_file():
            name = str(stage.relative_to(run))
            read = Stored(name, stage, json.loads(result.read_text(encoding="utf-8")))
            found.append((manifest.started, read))
    return [each for _, each in sorted(found, key=lambda item: (item[0], item[1].name))]


def originals(run: Path) -> list[Stored]:
    """The finished evaluations without those that scored answers again."""
    return [each for each in stored(run) if "rescored" not in each.result["provenance"]]


def find_stored(run: Path, suite: str | None = None) -> Stored:
    """The run's last evaluation, or its last one of that suite; none that was scored again. Raises `RunError` where
    there is none."""
    every = originals(run)
    chosen = [each for each in every if suite is None or each.is_of(suite)]
    if not chosen:
        there = ", ".join(dict.fromkeys(each.result["suite"]["name"] for each in every)) or "none"
        what = "evaluation" if suite is None else f"evaluation on {suite}"
        raise RunError(f"{run}: has no finished {what}; evaluated there: {there}{_checkpoint_instead(run, every)}")
    return chosen[-1]


def _checkpoint_instead(run: Path, found: Sequence[Stored]) -> str:
    """A way out where all results are on sections of the recipe's data, which compare with no suite."""
    labels = [each["label"] for stored in found if stored.reference is None for each in stored.result["checkpoints"]]
    places = [place for label in labels if (place := run / label / "checkpoint").is_dir()]
    return f", of its recipe's data; name a checkpoint instead: {places[0]}" if places else ""


def result_of(
    settings: Mapping[str, Any],
    baseline: Mapping[str, Any],
    results: Sequence[Evaluated],
    pairs: Mapping[tuple[str, str], Sequence[str]],
    *,
    arms: Mapping[str, str | None],
    provenance: Mapping[str, Any],
    others: Sequence[Evaluated] = (),
    ks: Sequence[int] = (1,),
    samples: int = 1,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """The JSON values of `eval.json`.

    Args:
        settings: of the suite, as `Suite.settings` has them.
        pairs: labels of results that are compared, and why (`pipelines.checkpoints.pairs_to_compare`).
        arms: label -> arm of the recipe.
        samples: answers that were asked for to each problem.
        others: results of other runs, which the last of `results` is compared with.
        allow: settings in which `others` may differ; named beside each such comparison.

    Raises:
        CompareError: they differ in other settings, or in their problems.
    """
    from eval.compare import adjust, compare
    from eval.protocol import read_protocol
    from eval.suite import digest
    from eval.summary import summarise
    from eval.tally import group_of

    group = group_of(settings["reward"].get("name"))  # of the harness's tasks each has its own
    protocol, engine = read_protocol(settings), settings["engine"].get("kind")
    by_name = {result.label: result for result in results}
    compared = [compare(by_name[a], by_name[b]) for a, b in pairs]
    compared += [compare(results[-1], other, allow=allow) for other in others]
    iterations = dict(provenance.get("iterations", {}))
    iterations |= {other.label: other.iterations for other in others if other.iterations is not None}
    roles = [*pairs.values(), *(["against"] for _ in others)]
    used, original = settings["data"]["problems"], settings["data"]["original"]
    return {
        "suite": {**settings, "digest": digest(settings)},
        "partial": used < original,
        "problems": {"used": used, "original": original},
        "ks": list(ks),
        "samples": samples,
        "baseline": dict(baseline),
        "checkpoints": [
            {
                "arm": arms.get(each.label),
                **{name: value for name, value in asdict(each).items() if name != "mean_seconds"},
                "file": f"{each.label}/{TRIALS_FILE}",
            }
            for each in (
                summarise(result.trials, ks=ks, samples=samples, group=group, protocol=protocol, engine=engine)
                for result in results
            )
        ],
        "comparisons": [
            _comparison(each, because, allow, iterations) for each, because in zip(adjust(compared), roles, strict=True)
        ],
        "provenance": dict(provenance),
    }


def check_comparable(
    settings: Mapping[str, Any], problems: Sequence[str], others: Sequence[Evaluated], allow: Sequence[str]
) -> None:
    """Looks at stored results before anything is asked. Raises `CompareError`, which names what differs: the problems
    that only one side has, else the settings."""
    from eval.compare import Evaluated, check_settings
    from eval.suite import CompareError, SettingsDiffer

    check_same_problems(problems, others)
    for other in others:
        try:
            check_settings(Evaluated("this evaluation", settings, []), other, allow)
        except SettingsDiffer as error:
            groups = ",".join([*allow, *error.groups])
            way_out = f"; allow=[{groups}] compares them all the same" if error.groups else ""
            raise CompareError(f"{error}{way_out}") from None


def check_same_problems(problems: Sequence[str], others: Sequence[Evaluated]) -> None:
    """Raises `CompareError` where stored results are of other problems, which names those that only one side has."""
    from eval.suite import CompareError

    for other in others:
        asked = {trial.problem_id for trial in other.trials}
        for here, there, where in ((set(problems), asked, "here"), (asked, set(problems), other.label)):
            if only := sorted(here - there):
                counts = f"{len(problems)} are asked here, {len(asked)} were in {other.label}"
                shown = ", ".join(only[:3])
                raise CompareError(
                    f"{len(only)} problems are only in {where}, such as {shown}; {counts}: ask both the same (limit)"
                )


def provenance_of(
    suite: Suite, problems: Sequence[Problem], found: Sequence[Checkpoint], samples: int, seed: int, engine: Any
) -> dict[str, Any]:
    """How the result of a suite came about, in JSON values. `engine`: the engine's settings."""
    return {
        "quote": quote(suite.settings(problems), samples, iterations_of(found, engine)),
        "first_prompt": [dict(turn) for turn in suite.messages(problems[0])],
        **provenance_of_run(found, seed, engine, suite.messages(problems[0]), problems[0].image is not None),
    }


def provenance_of_run(
    found: Sequence[Checkpoint], seed: int, engine: Any, first: Sequence[Message], image: bool = False
) -> dict[str, Any]:
    """What any result says of the checkpoints, the engine and the machine. `first`: the turns of the first prompt,
    beside which there may be an `image`."""
    iterations = iterations_of(found, engine)
    return {
        "engine": engine.model_dump(mode="json"),
        "seed": seed,
        **provenance(),
        "checkpoints": {each.name: each.fingerprint for each in found},
        **({"iterations": iterations} if iterations else {}),
        "weights": {each.name: weights_digest(each.path) for each in found},
        "chat_templates": {each.name: _short_sha(chat_template(each.path)) for each in found},
        "prompts": prompts.beginnings(found, first, image, engine),
    }


def write_result(directory: Path, result: Mapping[str, Any], results: Sequence[Evaluated]) -> None:
    """Writes the trials of each checkpoint, then `eval.json`."""
    from eval.trial import dump

    for each, shown in zip(results, result["checkpoints"], strict=True):
        place = directory / shown["file"]
        place.parent.mkdir(exist_ok=True)
        with whole(place) as path:
            path.write_text("".join(dump(trial) + "\n" for trial in each.trials), encoding="utf-8")
    write_json(directory / RESULT_FILE, result)


def sign(
    directory: Path,
    result: Mapping[str, Any],
    *,
    kind: str,
    source: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
    problems: int,
    spent: Spent,
) -> None:
    """Writes the manifest of a result that no run of a recipe has made, last of all its files."""
    Manifest(
        stage=directory.name,
        kind=kind,
        digest=digest_of(source),
        source=dict(source),
        inputs=dict(inputs),
        seed=seed,
        **spent.entries(),
        attempts=1,
        rows_in=problems,
        rows_out=problems,
        dropped={},
        numbers=numbers(result),
        warnings=warnings_of(result),
        files=output_files(directory),
    ).write(directory)


def quote(settings: Mapping[str, Any], samples: int = 1, iterations: Mapping[str, int] = MappingProxyType({})) -> str:
    """One line that says how a number was made.

    `iterations`: of the checkpoints with a loop. They are named where the number was set, as the others make none.
    """
    data, decoding, engine = settings["data"], settings["decoding"], settings["engine"]
    temperature, version = decoding["temperature"], settings["version"]
    partial = data["problems"] < data["original"]
    parts = [
        settings["name"] + (f" v{version}" if version is not None else ""),
        f"{data['problems']}/{data['original']}" + (" partial" if partial else ""),
        "greedy" if temperature == 0 else f"T={temperature}",
        f"at most {decoding['max_new_tokens']} tokens",
        f"{settings['reward']['name']} v{settings['reward']['version']}, "
        f"strict extraction v{settings['extraction']['version']}",
        f"n={samples}",
        " ".join(_of_engine(name, value) for name, value in engine.items() if value and name != "iterations"),
    ]
    if "iterations" in engine and iterations:
        number = engine["iterations"]
        parts.append(f"{number} iteration{'s' if number != 1 else ''} of {', '.join(iterations)}")
    return " · ".join(parts)


def _of_engine(name: str, value: Any) -> str:
    return str(value) if name in ("kind", "dtype") else f"{name}={value}"


def numbers(report: Mapping[str, Any]) -> dict[str, Number]:
    """What a result says in the manifest of its stage."""
    found: dict[str, Number] = {
        f"accuracy {each['label']}": each["accuracy"]["value"] for each in report["checkpoints"]
    }
    for each in report["comparisons"]:
        found[f"{each['a']} minus {each['b']}"] = each["difference"]["estimate"]["value"]
    if report["partial"]:
        found["partial"] = f"{report['problems']['used']} of {report['problems']['original']} problems"
    return found


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """What is unusual about each checkpoint's prompts and answers."""
    answers = [f"{each['label']}: {text}" for each in report["checkpoints"] for text in each["warnings"]]
    return [*prompts.warnings(report["provenance"].get("prompts", {})), *answers]


def weights_digest(path: str) -> str | None:
    """SHA-256 of a checkpoint's files of weights and configuration and of its bases', 16 digits.

    A name on the hub stands for its commit in this machine's cache; None where it is not there.
    """
    whole, found, root = hashlib.sha256(), layers_of(path), root_of(path)
    commit = None if Path(root).is_dir() else hub_commit(root)
    if not found:
        return None if commit is None else f"commit {commit}"
    for file in (file for directory in found for file in sorted(directory.iterdir())):
        if file.suffix in (".safetensors", ".bin", ".json"):
            with file.open("rb") as content:
                whole.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    whole.update((commit or "").encode())
    return whole.hexdigest()[:16]


def _short_sha(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


def _comparison(
    comparison: Comparison, roles: Sequence[str], allow: Sequence[str], iterations: Mapping[str, int]
) -> dict[str, Any]:
    from eval.compare import verdict

    allowed: dict[str, Any] = {}
    if allow and "against" in roles:
        sides = {side: iterations[side] for side in (comparison.a, comparison.b) if side in iterations}
        allowed = {"allowed": list(allow), **({"iterations": sides} if sides else {})}
    return {"roles": list(roles), **asdict(comparison), "verdict": verdict(comparison, seeds=1), **allowed}
