"""The default engine: a completion is a function of its request and the weights, and a bad row is its own affair."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from engines.base import Decoding, EngineError, Request, ScoreRequest
from engines.checkpoint import load_model, load_processor
from engines.rendering import Renderer, open_image
from engines.transformers import SeededSampling, TransformersEngine

WARM = Decoding(12, temperature=1.0, top_p=0.9)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def checkpoint(request: pytest.FixtureRequest, make_vlm: Callable[..., Path]) -> str:
    return str(make_vlm(request.param, tied=False))


@pytest.fixture
def open_engine(checkpoint: str) -> Callable[..., TransformersEngine]:
    """The model's head is scaled, so that it has opinions: an untrained one is nearly flat, and its ties are noise."""

    def make(batch_size: int = 16) -> TransformersEngine:
        model = load_model(checkpoint)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(8)
        return TransformersEngine(model, load_processor(checkpoint), batch_size)

    return make


def test_a_sample_depends_on_its_own_seed_alone(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    asked = [replace(r, decoding=WARM, seed=i) for i, r in enumerate(requests_)]
    together = {g.id: g for g in open_engine(16).generate(asked)}
    shuffled = random.Random(0).sample(asked, len(asked))
    for size in (1, 5):
        assert {g.id: g for g in open_engine(size).generate(shuffled)} == together
    assert len({g.token_ids for g in together.values()}) > len(asked) / 2
    again = {g.id: g.token_ids for g in open_engine().generate([replace(r, seed=r.seed + 1000) for r in asked])}
    assert again != {i: g.token_ids for i, g in together.items()}


def test_order_is_kept_and_results_stream(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request], score_requests: list[ScoreRequest]
) -> None:
    engine = open_engine(3)
    assert [g.id for g in engine.generate(requests_)] == [r.id for r in requests_]
    assert [s.id for s in engine.score(score_requests)] == [r.id for r in score_requests]
    same = [replace(requests_[0], id=f"{i}") for i in range(7)]
    stream, calls = engine.generate(same), Counter[str]()
    real = engine._generate_batch
    engine._generate_batch = lambda *a: (calls.update(["batch"]), real(*a))[1]  # type: ignore[method-assign]
    next(stream)
    assert calls["batch"] == 1  # of three
    assert list(engine.generate([])) == list(engine.score([])) == []


def test_max_new_tokens_is_each_requests_own(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    limits = [1, 3, 12, 7]
    asked = [replace(requests_[4 * i], decoding=Decoding(n), id=str(n)) for i, n in enumerate(limits)]
    engine = open_engine()
    for limit, generation in zip(limits, engine.generate(asked), strict=True):
        if generation.finish == "length":
            assert len(generation.token_ids) == limit
        else:
            assert generation.finish == "stop" and len(generation.token_ids) < limit
        alone = next(iter(engine.generate([asked[limits.index(limit)]])))
        assert alone == generation


def test_the_models_own_generation_defaults_do_not_leak_in(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    """Published checkpoints carry such defaults (Qwen2.5-VL: repetition_penalty 1.05); a request says all there is."""
    engine = open_engine()
    expected = list(engine.generate(requests_))
    defaults = engine._model.generation_config
    defaults.repetition_penalty, defaults.temperature, defaults.top_k, defaults.do_sample = 5.0, 0.1, 1, True
    defaults.no_repeat_ngram_size, defaults.min_new_tokens, defaults.num_beams = 1, 3, 2
    assert list(engine.generate(requests_)) == expected


def full_logits(engine: TransformersEngine, request: ScoreRequest) -> tuple[torch.Tensor, list[int]]:
    """Logits [target tokens, vocabulary] of one row alone, unpadded, from the processor's own tokens."""
    renderer: Renderer = engine._renderer
    target = renderer.target_ids(request.messages, request.target, request.image is not None)
    text = renderer.prompt_text(request.messages, request.image is not None)
    pictures = {"images": [[open_image(request.image)]]} if request.image else {}
    inputs: dict[str, Any] = dict(
        renderer.processor(text=[text], return_tensors="pt", add_special_tokens=False, **pictures)
    )
    length = inputs["input_ids"].shape[1]
    added = torch.tensor([target])
    for key, more in (
        ("input_ids", added),
        ("attention_mask", torch.ones_like(added)),
        ("mm_token_type_ids", torch.zeros_like(added)),
    ):
        if key in inputs:
            inputs[key] = torch.cat([inputs[key], more], 1)
    with torch.inference_mode():
        return engine._model(**inputs).logits[0, length - 1 : -1], target


def test_scores_are_the_log_softmax_of_the_full_logits(
    open_engine: Callable[..., TransformersEngine], score_requests: list[ScoreRequest]
) -> None:
    engine = open_engine(16)
    end = engine._renderer.tokenizer.eos_token_id
    for request, score in zip(score_requests, engine.score(score_requests), strict=True):
        logits, target = full_logits(engine, request)
        assert target[-1] == end and target.count(end) == 1  # the end of the turn is scored, what follows is not
        expected = logits.double().log_softmax(-1)[range(len(target)), target]
        assert score.error is None
        assert score.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        assert score.total == pytest.approx(float(expected.sum()), abs=1e-3)


def test_greedy_is_the_most_likely_token_each_time(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    engine = open_engine()
    checked = 0
    for request, generation in zip(requests_, engine.generate(requests_), strict=True):
        # What was written is scored as it was written where its text gives the same tokens again.
        asked = ScoreRequest(request.id, request.messages, generation.text, request.image)
        logits, target = full_logits(engine, asked)
        if tuple(target[:-1]) == generation.token_ids:
            logits[:, list(engine._renderer.banned_ids)] = -math.inf
            assert logits.argmax(-1)[:-1].tolist() == list(generation.token_ids)
            checked += 1
    assert checked or all(g.finish == "length" for g in engine.generate(requests_))


def test_bad_rows_are_errors_of_their_own(
    open_engine: Callable[..., TransformersEngine],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    tmp_path: Path,
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"not an image")
    question = [{"role": "user", "content": "what?"}]
    long = [{"role": "user", "content": "what? " * 600}]
    picture = requests_[0].image
    asked = [
        Request("torn", question, str(torn)),
        requests_[0],
        Request("nowhere", question, str(tmp_path / "nowhere.png")),
        Request("long", long),
        Request("long-image", long, picture),
        requests_[1],
        Request("wants-much", question, picture, Decoding(500)),
        requests_[3],
    ]
    bad = {"torn": "torn.png", "nowhere": "nowhere.png", "long": "512", "long-image": "512", "wants-much": "512"}
    engine = open_engine(len(asked))
    for request, generation in zip(asked, engine.generate(asked), strict=True):
        assert generation.id == request.id
        if request.id in bad:
            assert generation.finish == "error" and bad[request.id] in str(generation.error)
            assert generation.text == "" and generation.token_ids == ()
        else:
            assert generation == next(iter(engine.generate([request])))
            assert generation.finish != "error" and generation.error is None
    scored = [
        ScoreRequest("torn", question, "yes", str(torn)),
        score_requests[0],
        ScoreRequest("long", long, "yes", picture),
        ScoreRequest("long-target", question, "yes " * 600, picture),
        score_requests[1],
        score_requests[3],
        ScoreRequest("long-blind", long, "yes"),
    ]
    for request, score in zip(scored, engine.score(scored), strict=True):
        assert score.id == request.id
        if request in score_requests:
            assert score.error is None and score.total < 0
        else:
            assert ("torn.png" if request.id == "torn" else "512") in str(score.error)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_image_token_is_written_however_much_the_model_wants_to(
    temperature: float, open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    engine = open_engine()
    banned = list(engine._renderer.banned_ids)
    head = engine._model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]).index_fill(0, torch.tensor(banned), 100.0))
    asked = [replace(r, decoding=Decoding(12, temperature), seed=i) for i, r in enumerate(requests_)]
    written = {token for generation in engine.generate(asked) for token in generation.token_ids}
    assert banned and written and not written & set(banned)
    logits, _ = full_logits(engine, ScoreRequest("a", requests_[0].messages, "yes", requests_[0].image))
    assert set(logits.argmax(-1).tolist()) <= set(banned)  # unbanned, it would write nothing else


def test_a_model_in_training_stays_in_training(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request], score_requests: list[ScoreRequest]
) -> None:
    engine = open_engine()
    engine._model.train()
    list(engine.generate(requests_[:2]))
    list(engine.score(score_requests[:2]))
    assert engine._model.training


def test_closing_twice_is_harmless_and_use_afterwards_is_refused(
    open_engine: Callable[..., TransformersEngine], requests_: list[Request]
) -> None:
    engine = open_engine()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        next(iter(engine.generate(requests_)))


LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -1.0, -2.0, float("-inf")])


def reference(temperature: float, top_p: float) -> np.ndarray:
    """Softmax at a temperature, cut to the fewest most likely tokens that reach `top_p`, in plain numpy."""
    logits = LOGITS.double().numpy() / temperature
    p = np.exp(logits - logits.max())
    p /= p.sum()
    kept, reached = np.zeros(len(p), bool), 0.0
    for token in np.argsort(-p):
        if reached >= top_p:
            break
        kept[token] = True
        reached += p[token]
    return np.where(kept, p, 0) / p[kept].sum()


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.9), (1.0, 0.5), (0.7, 0.01)]
)
def test_sampling_follows_the_distribution(temperature: float, top_p: float) -> None:
    """Over seeds, and along the stream of one seed."""
    expected = reference(temperature, top_p)
    n = 4000
    decoding = Decoding(1, temperature, top_p)
    across = SeededSampling([decoding] * n, range(n))(torch.zeros(n, 0), LOGITS.repeat(n, 1)).argmax(-1)
    one = SeededSampling([decoding], [7])
    along = torch.cat([one(torch.zeros(1, 0), LOGITS.unsqueeze(0).clone()).argmax(-1) for _ in range(n)])
    for drawn in (across, along):
        counts = np.bincount(drawn.numpy(), minlength=len(LOGITS))
        assert counts[expected == 0].sum() == 0
        possible = expected > 0
        if possible.sum() > 1:
            assert chisquare(counts[possible], n * expected[possible]).pvalue > 1e-4


def test_greedy_rows_of_a_batch_are_left_as_they_are() -> None:
    sampling = SeededSampling([Decoding(1), WARM], [0, 0])
    scores = sampling(torch.zeros(2, 0), LOGITS.repeat(2, 1))
    assert torch.equal(scores[0], LOGITS) and not torch.equal(scores[1], LOGITS)
