"""A GGUF file, as llama.cpp packs models, made into a checkpoint that trains."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from engines.base import EngineError


def unpack(source: Path, target: Path, sha256: str | None = None) -> str:
    """Writes the model and the tokenizer of a GGUF file to `target`; returns a line on what was done.

    Weights are what the packed numbers stand for, in float32: training needs plain tensors.

    Args:
        sha256: what the file has to have; not looked at unless given.

    Raises:
        EngineError: the file is another one, or cannot be read, or the package `gguf` is missing.
    """
    if sha256 is not None:
        _check_digest(source, sha256)
    if find_spec("gguf") is None:
        raise EngineError(f"{source}: reading it needs the package gguf; install trivium-reasoning[gguf]")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise EngineError(f"{source}: cannot be read as GGUF ({str(error).splitlines()[0][:200]})") from error
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"{source.name}, {parameters / 1e6:,.1f} M parameters, unpacked to float32"


def _check_digest(source: Path, wanted: str) -> None:
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.lower():
        raise EngineError(f"{source}: its SHA-256 is {found}, not {wanted}; get the file anew")
