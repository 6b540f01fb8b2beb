"""The runs that the tests of the report share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.context import StageContext
from pipelines.report import write_report
from pipelines.report.measures import Measures, measure_all
from pipelines.report.run import read_run
from tasks.problem import Rows
from tests.report.runs import draw_problems, finish, make_context, make_run
from tests.report.suites import make_suites


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return draw_problems(tmp_path_factory.mktemp("images"), 60, 4)


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Path:
    """A run with an arm, an audit and hostile texts."""
    arms = {"": 0.04, "random": 0.02}
    return make_run(tmp_path_factory.mktemp("runs") / "demo", rows, rows.problems, arms=arms)


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def context_after() -> Callable[..., StageContext]:
    return make_context


@pytest.fixture(scope="session")
def finish_stage() -> Callable[..., None]:
    return finish


@pytest.fixture(scope="session")
def suites_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three suites, one of them with pictures, each answered four times by two checkpoints."""
    sizes = {"sums": 120, "shapes": 40, "words": 60}
    return make_suites(tmp_path_factory.mktemp("suites") / "runs" / "eval-tuned", sizes, samples=4)


@pytest.fixture(scope="session")
def suites_report(suites_run: Path) -> Path:
    """Its page."""
    return write_report(suites_run)


@pytest.fixture(scope="session")
def measured(suites_run: Path) -> list[Measures]:
    """What that page is made of."""
    return measure_all(read_run(suites_run).evaluations)
