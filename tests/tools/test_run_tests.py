"""Every test is in one part, and a part that fails makes the whole fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import run_tests

ROOT = Path(__file__).parents[2]


def test_every_file_is_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    seen: list[Path] = []
    for part in run_tests.parts():
        left_out = {Path(each.removeprefix("--ignore=")) for each in part if each.startswith("--")}
        for path in map(Path, run_tests.name(part).split()):
            found = [path] if path.suffix == ".py" else sorted(path.glob("**/test_*.py"))
            seen += [each for each in found if each not in left_out]
    assert sorted(seen) == sorted(Path("tests").glob("*/**/test_*.py"))


def test_a_failure_in_any_part_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, body in (("good", "assert True"), ("bad", "assert 1 == 2"), ("none", "pass")):
        (tmp_path / "tests" / name).mkdir(parents=True)
        test = f"def test_{name}():\n    {body}\n" if name != "none" else "x = 1\n"
        (tmp_path / "tests" / name / f"test_{name}.py").write_text(test)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_tests, "ALONE", ())
    assert run_tests.main([]) == 1
    assert "FAILED: tests/bad" in capfd.readouterr().out
    (tmp_path / "tests/bad/test_bad.py").write_text("def test_bad():\n    assert True\n")
    assert run_tests.main([]) == 0
