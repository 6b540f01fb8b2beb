"""Machines to reckon for: what they compute, move and hold at most. From data sheets, or from this machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engines.child import cores
from pipelines.errors import RecipeError
from pipelines.source import nearest

_CPU_INFO, _MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_CORE_BANDWIDTH = 10e9
_FLOP_PER_CYCLE = (("avx512f", 64), ("avx2", 32), ("asimd", 16))
"""float32, by the widest unit that the processor names: two fused multiply-adds of 16, 8 or 4 numbers a cycle."""
_CLOCK = 2.5e9


@dataclass(frozen=True, slots=True)
class Device:
    """One kind of GPU, or the cores of a processor, and how many of them.

    `bf16` and `fp32`: dense FLOP/s of one; `bandwidth`: bytes/s of its memory; `memory`: bytes, of all cores together
    where it is a processor.
    """

    name: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: float
    source: str
    count: int = 1
    gpu: bool = True

    @property
    def title(self) -> str:
        """`8 × h100`, `2 cores`."""
        if not self.gpu:
            return f"{self.count} core{'s' if self.count > 1 else ''} of this machine"
        return self.name if self.count == 1 else f"{self.count} × {self.name}"


def _gpu(name: str, bf16: float, fp32: float, bandwidth: float, memory: float, source: str) -> Device:
    """In TFLOP/s, TFLOP/s, GB/s, GB."""
    return Device(name, bf16 * 1e12, fp32 * 1e12, bandwidth * 1e9, memory * 1e9, source)


_NVIDIA = "NVIDIA data sheet, without sparsity"
GPUS: Mapping[str, Device] = {
    each.name: each
    for each in (
        _gpu("a100", 312, 19.5, 2039, 80, f"{_NVIDIA}: A100 80GB SXM"),
        _gpu("a100-40gb", 312, 19.5, 1555, 40, f"{_NVIDIA}: A100 40GB"),
        _gpu("h100", 989, 67, 3350, 80, f"{_NVIDIA}: H100 SXM"),
        _gpu("h100-nvl", 835, 60, 3900, 94, f"{_NVIDIA}: H100 NVL"),
        _gpu("h200", 989, 67, 4800, 141, f"{_NVIDIA}: H200 SXM"),
        _gpu("h20", 148, 44, 4000, 96, "as resellers give it; NVIDIA has no public sheet"),
        _gpu("b200", 2250, 80, 8000, 180, f"{_NVIDIA}: DGX B200, an eighth"),
        _gpu("l4", 121, 30.3, 300, 24, f"{_NVIDIA}: L4"),
        _gpu("l40s", 362, 91.6, 864, 48, f"{_NVIDIA}: L40S"),
        _gpu("a10", 125, 31.2, 600, 24, f"{_NVIDIA}: A10"),
        _gpu("a6000", 155, 38.7, 768, 48, f"{_NVIDIA}: RTX A6000"),
        _gpu("rtx-3090", 71, 35.6, 936, 24, "NVIDIA Ampere GA102 whitepaper, sums in float32"),
        _gpu("rtx-4090", 165, 82.6, 1008, 24, "NVIDIA Ada whitepaper, sums in float32"),
        _gpu("mi300x", 1307, 163.4, 5300, 192, "AMD data sheet, without sparsity: Instinct MI300X"),
    )
}
"""float32 is that of matrix products as torch makes them unless told otherwise, so without TF32."""


def device(text: str | None) -> Device:
    """`h100`, `8xh100`, `cpu`, `16xcpu` (cores like this machine's); this machine where None.

    Raises `RecipeError` for a name that is not there.
    """
    if text is None:
        return this_machine()
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([a-z][a-z0-9-]*)", text.strip().lower())
    name = match[2] if match else text
    if match is None or (name != "cpu" and name not in GPUS):
        raise RecipeError(f"--on: no device is called `{text}`{nearest(name, [*GPUS, 'cpu'])}")
    if name == "cpu":
        here = processor()
        return replace(here, count=int(match[1])) if match[1] else here
    return replace(GPUS[name], count=int(match[1] or 1))


def this_machine() -> Device:
    """Its NVIDIA GPUs where nvidia-smi knows them and the table too, else its processor."""
    names = _smi()
    known = [each for name in names for each in (_known(name),) if each is not None]
    if known and len(known) == len(names):
        return replace(known[0], count=len(known))
    return processor()


def processor() -> Device:
    """The cores that torch will use here. Peaks follow from the clock and the widest unit; see docs/cost.md."""
    info = _CPU_INFO.read_text() if _CPU_INFO.is_file() else ""
    flags = set(re.findall(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)[:1])
    words = " ".join(flags).split()
    each_cycle = next((value for flag, value in _FLOP_PER_CYCLE if flag in words), 16)
    clocks = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.MULTILINE)]
    peak = each_cycle * (max(clocks) * 1e6 if clocks else _CLOCK)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _MEMORY.read_text(), re.MULTILINE) if _MEMORY.is_file() else None
    usable = cores()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    count = min(usable, int(threads)) if threads.isdigit() and int(threads) else usable
    return Device(
        f"cpu ({platform.machine()})",
        peak,
        peak,
        _CORE_BANDWIDTH,
        int(memory[1]) * 1024 if memory else 0,
        f"{each_cycle} FLOP a cycle and core; 10 GB/s a core is assumed",
        count,
        gpu=False,
    )


def _known(name: str) -> Device | None:
    """The entry for a name as nvidia-smi gives it, such as `NVIDIA H100 80GB HBM3`."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())
    found = [key for key in GPUS if re.search(rf"(?:^|-){key}(?:-|$)", words)]
    if "a100" in found and "40gb" in words:
        return GPUS["a100-40gb"]
    return GPUS[max(found, key=len)] if found else None


def _smi() -> list[str]:
    """Names of the GPUs that may be used here; none where there is no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not Path("/dev/nvidiactl").exists():
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    names = [line.strip() for line in out.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else names[: len(visible.split(","))]
