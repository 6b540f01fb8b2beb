"""The benchmark of the pipeline's own time runs the real stages, and asks what they would ask of a model."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet

from benchmarks.overhead import STAGES, run_around_delayed_engine


def test_real_stages_run_around_an_engine_that_only_waits(tmp_path: Path) -> None:
    beyond, engine = run_around_delayed_engine(tmp_path / "run", images=12, problems=20, delay=0.001, batch_size=8)
    assert set(beyond) == set(STAGES) and all(seconds > 0 for seconds in beyond.values())
    triads = parquet.read_table(tmp_path / "run" / "filter" / "triads.parquet").to_pylist()
    assert len(triads) == 12, "every proposal of the engine can be parsed"
    # Proposals; then for each pair two rebuilt parts and four answers to generate; then the questions of the test.
    generated = 12 + 12 * (2 + 4) + 20
    assert engine.requests > generated, "likelihoods were asked for as well"
    assert engine.waited >= 0.001 * engine.requests / 8
