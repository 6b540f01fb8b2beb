"""Keeps the verdict on each problem of seeds that were run apart, and says what they come to together.

python -m benchmarks.verdicts FILE.json RUN...     # the seeds of these runs are added to the file, or take their place
python -m benchmarks.verdicts FILE.json            # the table alone

`--evaluation NAME` chooses one of a run's; `--against ARM` what arms are compared with, else the one without a name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.stats import mean_interval, paired_difference
from eval.trial import Trial
from pipelines.evaluation import originals
from pipelines.report.run import seed_directories

Verdicts = Mapping[str, Mapping[str, str]]
"""Seed → arm → a character for each test problem, in the order of the task: 1 right, 0 wrong."""


def of_run(run: Path, name: str | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """Each finished seed of a run, and its arms in the evaluation of that name, or in the only one."""
    for directory in seed_directories(run):
        every = [each for each in originals(directory) if name in (None, each.name)]
        if len(every) > 1:
            raise ValueError(f"{directory}: --evaluation is one of {', '.join(each.name for each in every)}")
        for evaluation in every:
            arms = evaluation.evaluated()
            orders = {tuple(trial.problem_id for trial in each.trials) for each in arms}
            if len(orders) > 1:
                raise ValueError(f"{evaluation.directory}: the arms have answered other problems, or in another order")
            yield directory.name.removeprefix("seed-"), {each.label: verdicts(each.trials) for each in arms}


def verdicts(trials: Sequence[Trial]) -> str:
    """A character for each: 1 right, 0 wrong."""
    return "".join("1" if trial.outcome == "correct" else "0" for trial in trials)


def table(seeds: Verdicts, control: str) -> str:
    """Markdown: each arm's share of right answers over the seeds, against the control's, and in each seed."""
    arms = [arm for arm in next(iter(seeds.values())) if all(arm in found for found in seeds.values())]
    lines = [
        f"| arm | right % | minus `{control}` | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---|---|---|" + "---|" * len(seeds),
    ]

    def answers(arm: str) -> Any:
        return np.array([[int(verdict) for verdict in found[arm]] for found in seeds.values()], float)

    for arm in arms:
        values = answers(arm)
        problems = list(range(values.shape[1]))
        accuracy = mean_interval(values.mean(0), problems)
        difference = paired_difference(values, answers(control), problems).estimate
        cells = [
            f"{100 * accuracy.value:.1f} {_ends(accuracy, '.1f')}",
            "–" if arm == control else f"{100 * difference.value:+.1f} {_ends(difference, '+.1f')}",
            *(f"{100 * each:.1f}" for each in values.mean(1)),
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ends(found: Any, form: str) -> str:
    return f"[{100 * found.low:{form}}, {100 * found.high:{form}}]" if found.low is not None else ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--evaluation")
    parser.add_argument("--against")
    given = parser.parse_args(arguments)
    kept: dict[str, Any] = {"seeds": {}}
    if given.file.exists():
        kept = json.loads(given.file.read_text(encoding="utf-8"))
    for run in given.runs:
        try:
            found = dict(of_run(run, given.evaluation))
        except ValueError as error:
            parser.error(str(error))
        if not found:
            print(f"{run}: no seed has been evaluated yet", file=sys.stderr)
            return 2
        kept["seeds"] |= found
    kept["seeds"] = dict(sorted(kept["seeds"].items(), key=lambda seed: int(seed[0])))
    first = next(iter(kept["seeds"].values()))
    if given.against and given.against not in first:
        parser.error(f"--against is one of {', '.join(first)}")
    if given.runs:
        given.file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(table(kept["seeds"], given.against or min(first, key=len)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
