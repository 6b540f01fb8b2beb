"""What a frozen model says of (image, question, completion's answer) as a triad: rewards that need no gold answer."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engines.base import Decoding, Engine, ScoreRequest
from engines.settings import EngineSettings
from rewards.answer import final_answer
from rewards.contract import RewardError, note
from rewards.text import Completion, text_of
from selfrefine.triad.measure import MeasureSettings, Pair, Pool, measure
from selfrefine.triad.score import consistency
from selfrefine.triad.similarity import open_similarity
from selfrefine.triad.templates import Prompts
from selfrefine.triad.vqa import ImageQuestionAnswer
from tasks.problem import Picture

_REBUILD = MeasureSettings(samples=0, other_images=0, edge_images=0)


def visual_gain(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    question: Sequence[str],
    image: Sequence[Any] | None = None,
    checkpoint: str | None = None,
    engine: Mapping[str, Any] | None = None,
    wording: Mapping[str, Any] | None = None,
    **columns: Any,
) -> list[float | None]:
    """log p(A|I,Q) − log p(A|Q) in nats, by a frozen model: how much more likely the image makes the answer.

    The score of the same name asks with other images in place of none; a batch of completions has no others. None
    where there is no image (`no image`), no answer (`unparsed`), or the model could not score it (`error`).

    Args:
        image: paths, or pictures as trainers hand them over.
        checkpoint: the model, a directory or a name on the hub; opened when it is first needed, and kept.
        engine: an `engine:` block of a recipe; transformers unless given.
        wording: a `prompts:` block, of which `system` counts here.

    Raises:
        RewardError: no checkpoint is given, or a block is not valid.
    """
    words, model = _wording("visual_gain", wording), _engine("visual_gain", checkpoint, engine)
    rows = _usable(completions, question, image)
    requests = [
        ScoreRequest(str(row), words.ask_answer(question[row]), answer, path)
        for row, (answer, picture) in rows.items()
        for path in (picture, None)
    ]
    scores: list[float | None] = [None] * len(completions)
    found = iter(model.score(requests))
    for row in rows:
        seen, blind = next(found), next(found)
        if seen.error is not None or blind.error is not None or not math.isfinite(seen.total - blind.total):
            note(row, "error")
        else:
            scores[row] = seen.total - blind.total
    return scores


def triad_consistency(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    question: Sequence[str],
    image: Sequence[Any] | None = None,
    checkpoint: str | None = None,
    engine: Mapping[str, Any] | None = None,
    wording: Mapping[str, Any] | None = None,
    similarity: str = "auto",
    max_new_tokens: int = 64,
    **columns: Any,
) -> list[float | None]:
    """The published score of a triad (arXiv 2510.10487, equation 3), from 0 to 1, as the filter stage takes it.

    A frozen model rebuilds the answer from image and question, and the question from image and the completion's answer;
    both are compared with what they should be, by the type of the question. None where there is no image (`no image`),
    no answer (`unparsed`), or a part could not be rebuilt (`not rebuilt`).

    Args:
        image, checkpoint, engine: as of `visual_gain`.
        wording: a `prompts:` block; the one that the model was tuned with.
        similarity: auto, bundled, lexical, or the directory of a sentence-transformer.
        max_new_tokens: longest rebuilt part.

    Raises:
        RewardError: no checkpoint is given, or a block is not valid.
    """
    name = "triad_consistency"
    words, alike, model = _wording(name, wording), _similarity(similarity), _engine(name, checkpoint, engine)
    triad = ImageQuestionAnswer(model, words, alike, Decoding(max_new_tokens))
    rows = _usable(completions, question, image)
    # Completions of one prompt often agree: each triple is rebuilt once.
    triples = {row: (picture, question[row], answer) for row, (answer, picture) in rows.items()}
    pairs = {
        triple: Pair(json.dumps(triple), Picture(triple[0], triple[0]), triple[1], triple[2])
        for triple in triples.values()
    }
    measured = measure(list(pairs.values()), Pool(()), triad, alike, _REBUILD, 0)
    values = {triple: consistency(each) for triple, each in zip(pairs, measured, strict=True)}
    scores: list[float | None] = [None] * len(completions)
    for row, triple in triples.items():
        scores[row] = values[triple]
        if scores[row] is None:
            note(row, "not rebuilt")
    return scores


def _usable(
    completions: Sequence[Completion], question: Sequence[str], image: Sequence[Any] | None
) -> dict[int, tuple[str, str]]:
    """Row → (answer, path of its image); the others are noted."""
    found = {}
    for row, (completion, _, picture) in enumerate(
        zip(completions, question, image or [None] * len(completions), strict=True)
    ):
        answer = final_answer(text_of(completion))
        if picture is None:
            note(row, "no image")
        elif answer is None:
            note(row, "unparsed")
        else:
            found[row] = answer, picture if isinstance(picture, str) else _kept(picture)
    return found


def _kept(picture: Any) -> str:
    """The file of a picture that a trainer holds in memory: engines read files."""
    digest = hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()
    path = Path(_folder().name) / f"{digest}.png"
    if not path.exists():
        picture.save(path)
    return str(path)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="trivium-pictures-")


def _engine(reward: str, checkpoint: str | None, settings: Mapping[str, Any] | None) -> Engine:
    if checkpoint is None:
        raise RewardError(f"reward `{reward}` asks a model: give its option `checkpoint`, a directory or a hub name")
    try:
        valid = TypeAdapter(EngineSettings).validate_python({"kind": "transformers", **(settings or {})})
    except ValidationError as error:
        raise RewardError(f"reward `{reward}`, option `engine`: {_first(error)}") from None
    return _opened(checkpoint, valid)


@cache
def _opened(checkpoint: str, settings: EngineSettings) -> Engine:
    """Both rewards share a model."""
    from engines.open import open_engine

    opened = open_engine(settings, checkpoint)
    atexit.register(opened.close)
    return opened


def _wording(reward: str, wording: Mapping[str, Any] | None) -> Prompts:
    try:
        return Prompts.model_validate(wording or {})
    except ValidationError as error:
        raise RewardError(f"reward `{reward}`, option `wording`: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


_similarity = cache(open_similarity)
