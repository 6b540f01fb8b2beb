"""What processes are given that this program starts."""

from __future__ import annotations

import os
import site
from pathlib import Path

import pytest

from engines.child import import_path, threads

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_stands_before_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert import_path() == str(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/a", "", "/b"]))
    assert import_path() == os.pathsep.join([str(ROOT), "/a", "/b"])


@pytest.mark.parametrize(("function", "many"), [("getsitepackages", True), ("getusersitepackages", False)])
def test_installed_code_is_found_without_a_path(
    function: str, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is installed, `dist-packages` and the user's own included, and by whatever link."""
    (tmp_path / "dist-packages").symlink_to(ROOT)
    place = str(tmp_path / "dist-packages")
    monkeypatch.setattr(site, function, lambda: [place] if many else place)
    monkeypatch.setenv("PYTHONPATH", "/a")
    assert import_path() == "/a"
    monkeypatch.delenv("PYTHONPATH")
    assert import_path() == ""


def test_cores_are_shared_out_where_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads(3, 8) == {"OMP_NUM_THREADS": "2"}
    assert threads(9, 8) == {"OMP_NUM_THREADS": "1"}
    assert threads(1) == {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads(3, 8) == {"OMP_NUM_THREADS": "5"}
