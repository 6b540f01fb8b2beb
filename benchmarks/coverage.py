"""How often the 95 % interval of a mean holds the truth: `python -m benchmarks.coverage [WORLDS]`, six minutes for 600.

Worlds have clusters of one problem, of four, or of sizes that are drawn (geometric, four on average); each cluster of
several has a difficulty of its own (beta, sum of both parameters 2).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from eval.stats import mean_interval

MEANS = (0.1, 0.3, 0.5)
CLUSTERS = (20, 40, 60, 200)
KINDS = ("single", "even", "uneven")
DRAWS = 1000


def coverage(kind: str, clusters: int, mean: float, worlds: int, rng: np.random.Generator) -> float:
    """The share of worlds whose interval holds `mean`."""
    held = 0
    for seed in range(worlds):
        sizes = rng.geometric(0.25, clusters) if kind == "uneven" else np.full(clusters, 1 if kind == "single" else 4)
        chances = np.full(clusters, mean) if kind == "single" else rng.beta(2 * mean, 2 * (1 - mean), clusters)
        values = (rng.random(sizes.sum()) < np.repeat(chances, sizes)).astype(float)
        found = mean_interval(values, np.repeat(np.arange(clusters), sizes).tolist(), draws=DRAWS, seed=seed)
        assert found.low is not None and found.high is not None
        held += found.low <= mean <= found.high
    return held / worlds


def table(worlds: int) -> Iterator[str]:
    """A line for each kind and number of clusters: coverage at each of `MEANS`."""
    rng = np.random.default_rng(7)
    for kind in KINDS:
        for clusters in CLUSTERS:
            found = [coverage(kind, clusters, mean, worlds, rng) for mean in MEANS]
            yield f"{kind} {clusters}: " + ", ".join(f"mean {m} {c:.1%}" for m, c in zip(MEANS, found, strict=True))


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 600):
        print(line, flush=True)
