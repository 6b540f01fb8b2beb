"""One self-contained `report.html` for a run, or for the runs of a recipe with `seeds:`."""

from __future__ import annotations

from pathlib import Path

REPORT_FILE = "report.html"


def write_report(directory: Path) -> Path:
    """Writes `report.html` into a run's directory, from the stages that are finished, and returns its path.

    A run over several seeds gets one for each seed, and one that puts them together.

    Raises:
        RunError: the directory is no run, or nothing of it is finished.
        TrialError: the trials of an evaluation cannot be read.
    """
    from pipelines.files import write_text
    from pipelines.report.page import render_run
    from pipelines.report.run import read_run, seed_directories
    from pipelines.report.seeds import render_seeds

    seeds = [read_run(each) for each in seed_directories(directory)]
    for run in seeds:
        write_text(run.directory / REPORT_FILE, render_run(run))
    page = render_seeds(directory, seeds) if seeds else render_run(read_run(directory))
    write_text(directory / REPORT_FILE, page)
    return directory / REPORT_FILE
