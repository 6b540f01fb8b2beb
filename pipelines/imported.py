"""Results that lm-evaluation-harness wrote by itself, as a run like any other: no model, no torch, no lm_eval."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import RunError
from pipelines.evaluation import result_of, sign, write_result
from pipelines.files import write_text
from pipelines.machine import Spent
from pipelines.runner import RECIPE_FILE


def import_results(place: Path, runs: Path, name: str | None, label: str | None) -> Path:
    """Makes a run of one evaluation of what the harness wrote, and returns its directory.

    Args:
        place: the harness's folder, or one of its `results_*.json`, made with `--log_samples`.
        name: of the run; `lm-eval-` and the checkpoint's name unless given.
        label: the checkpoint's name; the one in the results unless given.

    Raises:
        TrialError: there are no such results, or they cannot be read.
        RunError: there is a run of that name.
    """
    from eval.bridge.files import read_results
    from eval.compare import Evaluated
    from eval.suite import digest
    from eval.summary import constant_baseline
    from tasks.problem import Problem

    spent = Spent()
    read = read_results(place, label=label)
    shown = _plain(label or Path(read.trials[0].label).name)
    root = runs / (name or f"lm-eval-{shown}")
    if (root / RECIPE_FILE).exists():
        raise RunError(f"{root}: is a run already; give this one a --name of its own")
    original = sum(each["n_samples"]["original"] for each in read.provenance["tasks"].values())
    engine = {"kind": "lm-eval", "model": read.provenance["model"]}
    settings = {**read.settings, "data": {**read.settings["data"], "original": original}, "engine": engine}
    trials = [each.model_copy(update={"label": shown, "suite_digest": digest(settings)}) for each in read.trials]
    golds = [Problem(trial.problem_id, "", trial.gold or "") for trial in trials if trial.sample == 0]
    results = [Evaluated(shown, settings, trials)]
    quoted = f"{settings['name']} · {len(golds)}/{original} · by lm-eval {read.provenance['lm_eval_version']}"
    result = result_of(
        settings,
        asdict(constant_baseline(golds)),
        results,
        {},
        arms={},
        samples=max(trial.sample for trial in trials) + 1,
        provenance={"quote": quoted, "imported": str(place), "harness": read.provenance},
    )
    stage: dict[str, Any] = {"kind": "evaluate", "name": _plain(settings["name"]), "suite": settings["name"]}
    directory = root / stage["name"]
    directory.mkdir(parents=True)
    write_result(directory, result, results)
    source = {"settings": stage, "suite": digest(settings)}
    sign(
        directory, result, kind="evaluate", source=source, inputs={}, seed=trials[0].seed, problems=len(golds),
        spent=spent,
    )  # fmt: skip
    write_text(root / RECIPE_FILE, yaml.safe_dump({"name": root.name, "stages": [stage]}, sort_keys=False))
    return root


def _plain(name: str) -> str:
    """A name that directories can have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "checkpoint"
