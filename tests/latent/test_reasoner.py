"""The recurrent reasoner: its sizes, where the input enters, where gradients stop, what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from engines.base import EngineError
from selfrefine.latent.block import TransformerBlock
from selfrefine.latent.boards import Boards
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.loop import segments
from selfrefine.latent.model import LatentReasoner, load_reasoner, parameters_of
from selfrefine.latent.solve import Solved, solve
from selfrefine.training import IGNORED


def _tokens(boards: Boards, count: int = 3) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(boards.inputs[:count]), torch.from_numpy(boards.labels[:count])


def test_published_sizes_whatever_the_number_of_updates() -> None:
    published = 3_419_136  # of the public code, which does not count its prefix
    for updates, rounds in ((16, 16), (1, 2)):
        config = LatentReasonerConfig(updates=updates, segments=rounds)
        assert parameters_of(config) == published + config.hidden_size
    assert LatentReasonerConfig().inner_size == 1536


def test_learned_positions_are_a_table_that_is_read_with_the_input(
    config: LatentReasonerConfig, boards: Boards
) -> None:
    """Without rotation attention cannot tell positions apart, and a table of equal rows tells nothing, either."""
    torch.manual_seed(0)
    model = LatentReasoner(LatentReasonerConfig(**{**config.to_diff_dict(), "positions": "learned"}))
    assert model.positions is not None and model.positions.weight.shape == (17, 32)
    x = torch.from_numpy(boards.inputs[:4])
    order = torch.randperm(16)
    embedded = model.embed(x)
    table, tokens = model.positions.weight[1:], model.embedding(x)
    torch.testing.assert_close(embedded[:, 1:], 32**0.5 * 0.5**0.5 * (tokens + table))
    assert not torch.allclose(model(x).logits[:, order], model(x[:, order]).logits, atol=1e-3)
    with torch.no_grad():
        model.positions.weight[1:] = model.positions.weight[1]
    torch.testing.assert_close(model(x).logits[:, order], model(x[:, order]).logits, rtol=1e-4, atol=1e-5)


def test_one_block_is_called_for_every_update_and_reads_the_input_in_the_first_segment(
    reasoner: LatentReasoner, boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    forward = TransformerBlock.forward
    monkeypatch.setattr(
        TransformerBlock, "forward", lambda self, z, at: (seen.append(z.detach()), forward(self, z, at))[1]
    )
    x, _ = _tokens(boards)
    list(segments(reasoner, x, range(4)))
    monkeypatch.undo()
    assert len(seen) == 3 * 4
    at = _positions(reasoner, x)
    before = [reasoner.fresh(x)[0], *[reasoner.recurrence.block(z, at) for z in seen[:-1]]]
    injected = [bool((z - was).abs().max() > 1e-3) for z, was in zip(seen, before, strict=True)]
    assert injected == [True] * 3 + [False] * 9


def _positions(reasoner: LatentReasoner, x: Tensor) -> tuple[Tensor, Tensor]:
    from selfrefine.latent.block import rotation

    config = reasoner.config
    return rotation(x.shape[1] + 1, config.hidden_size // config.heads, config.rope_theta, x.device)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"reflect_segments": (0, 2)}, False),
        ({"reflect_segments": ()}, True),
        ({"recurrence": "hrm", "layers": 1, "fast_updates": 2}, False),
        ({"recurrence": "trm", "layers": 1, "fast_updates": 2}, False),
    ],
)
def test_the_input_is_read_where_the_config_says(
    config: LatentReasonerConfig, boards: Boards, changes: dict[str, object], same: bool
) -> None:
    torch.manual_seed(0)
    model = LatentReasoner(LatentReasonerConfig(**(config.to_dict() | changes)))
    x, _ = _tokens(boards)
    other = x.roll(1, 0)
    begun = next(segments(model, x, [0])).state
    ends = [list(segments(model, ids, range(1, 4), begun))[-1].logits for ids in (x, other)]
    assert torch.equal(*ends) is same


def test_no_gradient_crosses_an_alignment_unless_it_is_asked_for(reasoner: LatentReasoner, boards: Boards) -> None:
    x, y = _tokens(boards)
    weight = reasoner.recurrence.block.blocks[0].qkv.weight

    def gradient(*numbers: int, cut: bool = True) -> Tensor:
        states = [None, *[each.state for each in segments(reasoner, x, range(4))]]
        reasoner.zero_grad()
        for number in numbers:
            reasoner(x, y, state=states[number], first=number, count=1).loss.backward()
        return weight.grad.clone()

    parts = [gradient(number) for number in range(4)]
    assert all(part.abs().max() > 1e-6 for part in parts)
    reasoner.zero_grad()
    reasoner(x, y).loss.backward()
    torch.testing.assert_close(weight.grad, sum(parts), rtol=1e-4, atol=1e-7)
    reasoner.zero_grad()
    reasoner(x, y, cut=False).loss.backward()
    assert (weight.grad - sum(parts)).abs().max() > 1e-4
    # The input is read in the first segment alone: later losses say nothing about the embedding.
    reasoner.zero_grad()
    reasoner(x, y, state=next(segments(reasoner, x, [0])).state, first=1, count=1).loss.backward()
    assert reasoner.embedding.weight.grad is None


def test_hrm_has_the_gradient_of_one_update_of_each_module_and_trm_of_its_last_round(
    config: LatentReasonerConfig, boards: Boards
) -> None:
    x, y = _tokens(boards)
    calls: dict[str, list[bool]] = {}
    for rule in ("hrm", "trm"):
        changes = {"recurrence": rule, "layers": 1, "updates": 3, "fast_updates": 2}
        model = LatentReasoner(LatentReasonerConfig(**(config.to_dict() | changes)))
        seen = calls[rule] = []
        for part in model.recurrence.children():
            part.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out.requires_grad))
        model(x, y, count=1)
    assert calls["hrm"] == [False] * 7 + [True] * 2  # 3 · (2 fast + 1 slow) updates
    assert calls["trm"] == [False] * 6 + [True] * 3


def test_saved_and_loaded_it_is_the_same_function(reasoner: LatentReasoner, boards: Boards, tmp_path: Path) -> None:
    x, _ = _tokens(boards)
    reasoner.save_pretrained(tmp_path)
    loaded = LatentReasoner.from_pretrained(tmp_path)
    assert torch.equal(loaded(x).logits, reasoner(x).logits)
    assert torch.equal(loaded.z_init, reasoner.z_init) and reasoner.z_init.std() > 0.5
    assert loaded.config.reflect_segments == [0] and loaded.config.segments == 4
    assert "z_init" not in dict(loaded.named_parameters())


@pytest.mark.parametrize(
    ("missing", "changes", "said"),
    [
        (["z_init"], {}, "z_init: the file of weights has none, the model of config.json has [1, 32]"),
        ([], {"layers": 2}, "blocks.1.down.weight: the file of weights has none, the model of config.json has [32,"),
        ([], {"positions": "learned"}, "positions.weight: the file of weights has none, the model of config.json has"),
        ([], {"alphabet": "_12"}, "embedding.weight: the file of weights has [6, 32], the model of config.json has [4"),
        ([], {"recurrence": "trm", "fast_updates": 1}, "recurrence.block.blocks.0.down.weight: the file of weights"),
        ([], {"hidden_size": 36}, "config.json: hidden_size 36 must be a multiple of 2 × heads; heads is 4; copy or"),
        ([], {"alphabet": 5}, "config.json: 'int' object is not iterable; copy or save the checkpoint again"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    reasoner: LatentReasoner, tmp_path: Path, missing: list[str], changes: dict[str, Any], said: str
) -> None:
    """What is missing would be drawn by chance: a reasoner, but not the one that was trained."""
    reasoner.save_pretrained(tmp_path)
    assert torch.equal(load_reasoner(str(tmp_path)).z_init, reasoner.z_init)
    kept = {name: weight for name, weight in reasoner.state_dict().items() if name not in missing}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(EngineError) as refused:
        load_reasoner(str(tmp_path))
    assert said in str(refused.value) and str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_answers_depend_on_nothing_but_the_board(reasoner: LatentReasoner, boards: Boards) -> None:
    x = torch.from_numpy(boards.inputs)
    together = solve(reasoner, x).answers
    order = torch.from_numpy(np.random.default_rng(0).permutation(40))
    assert torch.equal(solve(reasoner, x[order]).answers, together[:, order])
    assert torch.equal(torch.cat([solve(reasoner, x[i : i + 1]).answers for i in range(7)], 1), together[:, :7])


def test_a_row_leaves_when_it_repeats_itself_and_keeps_the_rule(reasoner: LatentReasoner, boards: Boards) -> None:
    x = torch.from_numpy(boards.inputs)
    whole = solve(reasoner, x, count=9)
    even = torch.arange(40) % 2 == 0
    ids = {tuple(row.tolist()): bool(ok) for row, ok in zip(x, even, strict=True)}
    early = solve(
        reasoner, x, count=9, rule=lambda inputs, answers: torch.tensor([ids[tuple(row.tolist())] for row in inputs])
    )
    assert (early.used[~even] == 9).all() and (early.used[even] < 9).any()
    for row in range(40):
        last = int(early.used[row])
        assert torch.equal(early.answers[:last, row], whole.answers[:last, row])
        assert (early.answers[last - 1 :, row] == early.answers[last - 1, row]).all()
        repeated = [n for n in range(1, 9) if torch.equal(whole.answers[n, row], whole.answers[n - 1, row])]
        if even[row]:
            assert last == (repeated[0] + 1 if repeated else 9)


def test_what_is_not_judged_is_neither_right_nor_wrong() -> None:
    labels = torch.tensor([[5, 2, IGNORED, IGNORED], [1, 2, 3, 4]])
    found = Solved(
        torch.tensor([[[5, 2, 1, 1], [1, 2, 3, 1]], [[5, 3, 1, 2], [1, 2, 3, 4]]]), torch.tensor([2, 2]), None
    )
    assert found.right(labels).tolist() == [[True, False], [False, True]]
    assert found.cells(labels).tolist() == [[1.0, 0.75], [0.5, 1.0]]


def test_the_change_of_every_update_is_measured(reasoner: LatentReasoner, boards: Boards) -> None:
    x, _ = _tokens(boards)
    found = solve(reasoner, x, count=2, watched=True)
    assert found.changes is not None and found.changes.shape == (2 * 3, 3)
    z = reasoner.fresh(x)[0]
    e, at = reasoner.embed(x), _positions(reasoner, x)
    for update in range(6):
        after = reasoner.recurrence.block(z + e if update < 3 else z, at)
        wanted = (after - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
        torch.testing.assert_close(found.changes[update], wanted)
        z = after


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recurrence": "hmr"}, "recurrence: Input should be 'sr2', 'plain', 'hrm' or 'trm'"),
        ({"updates": 0}, "updates: Input should be greater than or equal to 1"),
        ({"hidden_size": 36, "heads": 4}, "hidden_size 36 must be a multiple of 2 × heads"),
        ({"reflect_segments": (4,)}, "reflect_segments [4]: there are 4 segments"),
        ({"reflect_updates": 7}, "reflect_updates is from 1 to updates (3), not 7"),
        ({"alphabet": "1123"}, "alphabet '1123': one or more characters, all different"),
        ({"recurrence": "plain"}, "plain passes once"),
    ],
)
def test_bad_configs_get_one_line(config: LatentReasonerConfig, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        LatentReasonerConfig(**(config.to_dict() | changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_tokens_that_are_none_are_refused(reasoner: LatentReasoner) -> None:
    with pytest.raises(ValueError, match="tokens from 1 to 6; those of this model are 0 to 5"):
        solve(reasoner, torch.tensor([[1, 6, 2]]))
    with pytest.raises(ValueError, match="tokens from -100 to 2"):
        reasoner(torch.tensor([[1, -100, 2]]))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"count": 0}, "segments 0 to -1: give count 1 or more; this model has 4"),
        ({"first": 4}, "segments 4 to 3"),
        ({"labels": torch.ones(1, 15, dtype=torch.long)}, r"labels of shape \(1, 15\) for inputs of shape \(1, 16\)"),
    ],
)
def test_what_no_segment_can_do_is_refused(reasoner: LatentReasoner, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        reasoner(torch.ones(1, 16, dtype=torch.long), **how)
    with pytest.raises(ValueError, match=r"an input of shape \(0, 16\) is empty"):
        reasoner(torch.ones(0, 16, dtype=torch.long))


def test_transformers_knows_a_reasoner(reasoner: LatentReasoner, tmp_path: Path) -> None:
    reasoner.save_pretrained(tmp_path)
    found = AutoModel.from_pretrained(tmp_path)
    x = torch.ones(2, 16, dtype=torch.long)
    assert isinstance(found, LatentReasoner) and torch.equal(found(x).logits, reasoner(x).logits)
    assert found.get_input_embeddings() is found.embedding


def test_a_longer_input_is_refused(reasoner: LatentReasoner) -> None:
    with pytest.raises(ValueError, match="an input of 17 tokens; this model reads 16 at most"):
        reasoner(torch.ones(1, 17, dtype=torch.long))
