"""vLLM and transformers are the same function of the weights, after every update of them; five faults would show.

Each of these faults is silent: sampling goes on, from another model than the one in training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import engines.vllm
from engines.base import Decoding, Engine, EngineError, Request, ScoreRequest
from engines.checkpoint import load_model, load_processor
from engines.rendering import Renderer, open_image
from engines.settings import TransformersSettings, VllmSettings
from engines.transformers import TransformersEngine
from engines.vllm import VllmEngine, import_vllm
from engines.weights import named_weights
from tests.engines.conftest import stopped

TOLERANCE = 1e-4  # nats, in float32
SETTINGS = VllmSettings(max_num_seqs=8)


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    try:
        import_vllm()
    except EngineError as error:
        pytest.skip(str(error))


class Trained:
    """A model in training: a few steps at a learning rate that changes its every answer."""

    def __init__(self, checkpoint: Path, score_requests: Sequence[ScoreRequest], *, lora: bool) -> None:
        self.processor = load_processor(str(checkpoint))
        self.model = load_model(str(checkpoint))
        torch.manual_seed(0)  # for the adapters' first weights
        if lora:
            from peft import LoraConfig, get_peft_model

            # Every linear layer of both towers but the head: adapters on the vision side count as well.
            linear = [n for n, m in self.model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
            self.model = get_peft_model(self.model, LoraConfig(r=4, lora_alpha=8, target_modules=linear))
        self._batch = self._tokens(score_requests)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, lr=1e-2)

    def step(self) -> None:
        self.model.train()
        for _ in range(2):
            loss = self.model(**self._batch, labels=self._batch["input_ids"]).loss
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.model.eval()

    def engine(self) -> TransformersEngine:
        return TransformersEngine(self.model, self.processor, batch_size=16)

    def _tokens(self, score_requests: Sequence[ScoreRequest]) -> dict[str, torch.Tensor]:
        seen = [request for request in score_requests if request.image is not None]
        renderer = Renderer(self.processor, self.model.config)
        texts = [
            renderer.prompt_text(r.messages, True) + renderer.target_text(r.messages, r.target, True) for r in seen
        ]
        pictures = [[open_image(str(r.image))] for r in seen]
        return dict(self.processor(text=texts, images=pictures, padding=True, return_tensors="pt"))


@pytest.fixture
def trained(make_vlm: Callable[..., Path], score_requests: list[ScoreRequest]) -> Callable[..., Trained]:
    def make(architecture: str = "qwen2_5_vl", *, lora: bool = False) -> Trained:
        return Trained(make_vlm(architecture, lively=True), score_requests, lora=lora)

    return make


@pytest.fixture(scope="module")
def shared() -> Iterator[list[VllmEngine]]:
    """The engine that tests of one checkpoint share, once it is open: to start and to close one takes seconds."""
    held: list[VllmEngine] = []
    yield held
    close_all(held)


@pytest.fixture
def alone(shared: list[VllmEngine]) -> None:
    """For tests that open engines of their own: a process can have one at a time."""
    close_all(shared)


def close_all(engines: list[VllmEngine]) -> None:
    while engines:
        engines.pop().close()


@pytest.fixture
def serving(shared: list[VllmEngine], make_vlm: Callable[..., Path]) -> VllmEngine:
    """With the weights of the checkpoint, whatever the test before it served."""
    checkpoint = str(make_vlm(lively=True))
    if shared:
        shared[0].update_weights(load_model(checkpoint).named_parameters())
    else:
        shared.append(VllmEngine(SETTINGS, checkpoint))
    return shared[0]


def assert_parity(ours: Engine, theirs: Engine, requests: Sequence[Request], scores: Sequence[ScoreRequest]) -> None:
    """Equal completions, and likelihoods within `TOLERANCE`.

    Completions come first: scoring reads no prefix cache but fills it, so it would hide a stale one from them.
    """
    assert list(theirs.generate(requests)) == list(ours.generate(requests))
    expected, found = list(ours.score(scores)), list(theirs.score(scores))
    for one, other in zip(expected, found, strict=True):
        assert other.error is None
        assert other.logprobs == pytest.approx(one.logprobs, abs=TOLERANCE, rel=0)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava"])
def test_engines_agree_after_each_large_update(
    architecture: str,
    lora: bool,
    make_vlm: Callable[..., Path],
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
) -> None:
    training = trained(architecture, lora=lora)
    with closing(VllmEngine(SETTINGS, str(make_vlm(architecture, lively=True)))) as engine:
        assert_parity(training.engine(), engine, requests_, score_requests)
        for _ in range(3):
            before = torch.tensor([score.total for score in engine.score(score_requests)])
            training.step()
            engine.update_weights(named_weights(training.model))
            assert_parity(training.engine(), engine, requests_, score_requests)
            # The update was large, and completions differ: a stale weight or a wrong prompt would show.
            after = torch.tensor([score.total for score in engine.score(score_requests)])
            assert (after - before).abs().mean() > 1000 * TOLERANCE
            assert len({generation.token_ids for generation in engine.generate(requests_)}) > len(requests_) // 4


@pytest.mark.usefixtures("alone")
def test_an_adapter_directory_is_served_merged(
    trained: Callable[..., Trained], requests_: list[Request], score_requests: list[ScoreRequest], tmp_path: Path
) -> None:
    training = trained(lora=True)
    training.step()
    training.model.save_pretrained(tmp_path)
    training.processor.save_pretrained(tmp_path)
    with closing(VllmEngine(SETTINGS, str(tmp_path))) as engine:
        assert_parity(training.engine(), engine, requests_, score_requests)
        opened = TransformersEngine.open(TransformersSettings(), str(tmp_path))
        assert_parity(opened, engine, requests_, score_requests)


def test_sending_an_adapter_leaves_the_model_in_training_as_it_was(trained: Callable[..., Trained]) -> None:
    training = trained(lora=True)
    training.step()
    before = copy.deepcopy(training.model.state_dict())
    sent = dict(named_weights(training.model))
    merged = copy.deepcopy(training.model).merge_and_unload()
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(sent.pop(name), parameter)
    assert not sent
    after = training.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ── The faults ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("alone")
def test_fault_downcast(
    make_vlm: Callable[..., Path],
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines.vllm, "_dtype", lambda settings, config, source: "auto")
    with closing(VllmEngine(SETTINGS, str(make_vlm(lively=True)))) as engine, pytest.raises(AssertionError):
        assert_parity(trained().engine(), engine, requests_, score_requests)


def test_fault_stale_tied_head(
    serving: VllmEngine,
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = engines.vllm.for_serving
    monkeypatch.setattr(
        engines.vllm, "for_serving", lambda named, config: [w for w in real(named, config) if w[0] != "lm_head.weight"]
    )
    training = trained()
    training.step()
    serving.update_weights(named_weights(training.model))
    with pytest.raises(AssertionError):
        assert_parity(training.engine(), serving, requests_, score_requests)


def _merged_views(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """How trainers hand over an adapter: merge, yield the live tensors, unmerge when the last one has been taken."""
    model.merge_adapter()
    for name, parameter in model.get_base_model().named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter
    model.unmerge_adapter()


@pytest.mark.parametrize("copied", [True, False])
def test_fault_unmerged_adapter(
    copied: bool,
    serving: VllmEngine,
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = trained(lora=True)
    training.step()
    if copied:
        serving.update_weights(_merged_views(training.model))
        assert_parity(training.engine(), serving, requests_, score_requests)
        return
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor, **_: tensor)
    weights = engines.vllm.for_serving(_merged_views(training.model), training.model.config)
    monkeypatch.undo()
    serving.update_weights(weights)
    with pytest.raises(AssertionError):
        assert_parity(training.engine(), serving, requests_, score_requests)


def test_raw_adapter_weights_are_refused(serving: VllmEngine, trained: Callable[..., Trained]) -> None:
    with pytest.raises(EngineError, match="not merged"):
        serving.update_weights(trained(lora=True).model.named_parameters())


def test_fault_image_tokens_expanded_twice(
    serving: VllmEngine,
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = trained()
    renderer = serving._renderer
    one, several = training.model.config.image_token_id, 4
    real = renderer.prompt_ids

    def expanded(messages: Any, image: bool) -> list[int]:
        return [token for token in real(messages, image) for _ in range(several if token == one else 1)]

    monkeypatch.setattr(renderer, "prompt_ids", expanded)
    with pytest.raises(AssertionError):
        assert_parity(training.engine(), serving, requests_, score_requests)


@pytest.mark.parametrize(
    ("cache", "caught"),
    # A stale prefix is silent; an encoder output that only the scheduler still counts on stops vLLM.
    [("reset_prefix_cache", AssertionError), ("reset_encoder_cache", RuntimeError)],
)
def test_fault_cache_outlives_a_reload(
    cache: str,
    caught: type[Exception],
    serving: VllmEngine,
    shared: list[VllmEngine],
    trained: Callable[..., Trained],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = trained()
    assert_parity(training.engine(), serving, requests_, score_requests)
    owner = serving._llm if cache == "reset_prefix_cache" else serving._llm.llm_engine
    monkeypatch.setattr(owner, cache, lambda: None)
    training.step()
    serving.update_weights(named_weights(training.model))
    with pytest.raises(caught):
        assert_parity(training.engine(), serving, requests_, score_requests)
    if caught is RuntimeError:
        close_all(shared)  # it stopped amid its work


# ── What holds besides ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_depends_on_its_own_seed_alone(serving: VllmEngine, requests_: list[Request]) -> None:
    asked = [
        Request(r.id, r.messages, r.image, Decoding(12, temperature=1.0, top_p=0.9), seed=i)
        for i, r in enumerate(requests_)
    ]
    together = {g.id: g.token_ids for g in serving.generate(asked)}
    alone = {g.id: g.token_ids for request in reversed(asked) for g in serving.generate([request])}
    assert together == alone
    assert len(set(together.values())) > 1


def test_samples_of_a_problem_take_its_prompt_out_of_the_cache(
    serving: VllmEngine, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and image alike, and also those that start in one step."""
    warm = Decoding(4, temperature=1.0)
    asked = [replace(r, id=f"{r.id}/{k}", decoding=warm, seed=k) for r in requests_[:4] for k in range(4)]
    cached: list[tuple[int, int]] = []
    llm_engine = serving._llm.llm_engine
    step = llm_engine.step

    def watched() -> Any:
        outputs = step()
        cached.extend((each.num_cached_tokens, len(each.prompt_token_ids)) for each in outputs if each.finished)
        return outputs

    monkeypatch.setattr(llm_engine, "step", watched)
    assert [each.id for each in serving.generate(asked)] == [request.id for request in asked]
    assert len(cached) == len(asked)
    assert sum(tokens > 0.6 * length for tokens, length in cached) >= 3 * len(requests_[:4])


def test_stop_strings_end_the_same_completions_at_the_same_place(
    serving: VllmEngine, trained: Callable[..., Trained], requests_: list[Request]
) -> None:
    ours = trained().engine()
    plain = list(ours.generate(requests_))
    asked = stopped(requests_, plain)
    made = list(serving.generate(asked))
    assert made == list(ours.generate(asked))
    assert sum(len(short.text) < len(whole.text) for short, whole in zip(made, plain, strict=True)) > len(plain) // 3


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_no_image_token_is_ever_sampled(
    engine: str, serving: VllmEngine, trained: Callable[..., Trained], requests_: list[Request]
) -> None:
    # An untrained model draws almost evenly from a few hundred tokens: unbanned, image tokens would come.
    flat = Decoding(100, temperature=2.0)
    asked = [Request(r.id, r.messages, r.image, flat, seed=i) for i, r in enumerate(requests_)]
    training = trained()
    drawn = [
        token
        for generation in (serving if engine == "vllm" else training.engine()).generate(asked)
        for token in generation.token_ids
    ]
    banned = set(Renderer(training.processor, training.model.config).banned_ids)
    assert len(drawn) > 500
    assert {"<|image_pad|>", "<|vision_start|>"} <= set(training.processor.tokenizer.convert_ids_to_tokens(banned))
    assert not banned & set(drawn)


def test_a_bad_row_is_an_error_and_the_others_go_on(
    serving: VllmEngine, requests_: list[Request], score_requests: list[ScoreRequest], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"not an image")
    question = [{"role": "user", "content": "what?"}]
    bad = [
        Request("torn", question, str(torn)),
        Request("long", [{"role": "user", "content": "what? " * 600}]),
        Request("image-long", question, requests_[0].image, Decoding(500)),
    ]
    found = list(serving.generate([bad[0], requests_[0], *bad[1:], requests_[1]]))
    assert [g.id for g in found] == ["torn", "r0", "long", "image-long", "r1"]
    assert [g.finish == "error" for g in found] == [True, False, True, True, False]
    assert "torn.png" in str(found[0].error)
    assert "512" in str(found[2].error) and "512" in str(found[3].error)
    scored = list(serving.score([ScoreRequest("torn", question, "yes", str(torn)), score_requests[0]]))
    assert scored[0].error is not None and scored[1].error is None


def test_an_abandoned_stream_leaves_the_engine_usable(serving: VllmEngine, requests_: list[Request]) -> None:
    expected = list(serving.generate(requests_))
    stream = serving.generate(requests_)
    assert next(stream) == expected[0]
    stream.close()
    assert list(serving.generate(requests_)) == expected


def test_closing_twice_is_harmless_and_use_afterwards_is_refused(serving: VllmEngine, shared: list[VllmEngine]) -> None:
    shared.clear()
    serving.close()
    serving.close()
    assert not torch.distributed.is_initialized()
    with pytest.raises(EngineError, match="closed"):
        next(iter(serving.generate([Request("a", [{"role": "user", "content": "a"}])])))
