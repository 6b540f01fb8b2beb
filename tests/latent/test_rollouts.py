"""The training of a reasoner: equal to a transcription, resumable, its batches and its average as described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from benchmarks.plain_reasoner import train, weights_of
from engines.base import EngineError
from selfrefine.latent.block import Rotation, TransformerBlock
from selfrefine.latent.boards import Boards
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.curves import curve, curves
from selfrefine.latent.fit import train_reasoner
from selfrefine.latent.loop import segments
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.precision import bfloat16_products
from selfrefine.latent.settings import RolloutSettings
from selfrefine.training import TrainingStopped

QUICK = RolloutSettings(
    steps=24,
    batch_size=8,
    learning_rate=1e-3,
    warmup_steps=0,
    weight_decay=0.1,
    ema=0.9,
    ema_warmup=False,
    save_every=2,
)


def _fit(
    boards: Boards, config: LatentReasonerConfig, folder: Path, settings: RolloutSettings = QUICK, **others: Any
) -> tuple[dict[str, float | int], list[Mapping[str, Any]]]:
    log: list[Mapping[str, Any]] = []
    numbers = train_reasoner(
        boards, config, folder / "checkpoint", folder / "saves", settings, 7, on_log=log.append, **others
    )
    return numbers, log


def test_losses_and_average_are_those_of_the_transcription(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    begun = LatentReasoner(config)
    weights = weights_of(begun.named_parameters())
    batches = [tuple(map(torch.from_numpy, boards.batch(rollout, 8, 7))) for rollout in range(6)]
    losses, average = train(
        weights, begun.z_init, batches, config.segments, config.updates, config.heads, config.rope_theta,
        QUICK.learning_rate, QUICK.weight_decay, 0.9,
    )  # fmt: skip
    _, log = _fit(boards, config, tmp_path)
    torch.testing.assert_close([row["loss"] for row in log], losses, rtol=1e-5, atol=2e-6)
    for folder, wanted in (("checkpoint", average), ("checkpoint/raw", weights)):
        found = LatentReasoner.from_pretrained(tmp_path / folder)
        torch.testing.assert_close(found.head.weight, wanted["head"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.prefix, wanted["prefix"], rtol=1e-4, atol=1e-6)
        block = found.recurrence.block.blocks[0]
        torch.testing.assert_close(block.qkv.weight, wanted["qkv"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.embedding.weight, wanted["embedding"], rtol=1e-4, atol=1e-5)
    assert [row["segment"] for row in log] == [0, 1, 2, 3] * 6
    assert log[-1]["rollouts"] == 6 and log[-1]["boards_seen"] == 48


def test_without_zero_gradients_the_embedding_rests_after_the_first_segment(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    _, kept = _fit(boards, config, tmp_path / "kept")
    _, left = _fit(boards, config, tmp_path / "left", QUICK.model_copy(update={"zero_gradients": False}))
    same = [a["loss"] == b["loss"] for a, b in zip(kept, left, strict=True)]
    assert same[:5] == [True] * 4 + [False]  # The first batch never reads the embedding again.


def test_a_stopped_training_ends_as_an_undisturbed_one(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    _, whole = _fit(boards, config, tmp_path / "whole")
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 9  # inside the third rollout

    with pytest.raises(TrainingStopped, match="step 12 of 24"):
        _fit(boards, config, tmp_path / "stopped", should_stop=stop)
    _, rest = _fit(boards, config, tmp_path / "stopped")
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole[12:]]
    for folder in ("checkpoint", "checkpoint/raw"):
        one, other = (LatentReasoner.from_pretrained(tmp_path / each / folder) for each in ("whole", "stopped"))
        for (name, weight), (_, wanted) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
            assert torch.equal(weight, wanted), (folder, name)


@pytest.mark.parametrize("alignment", ["sum", "last", "whole"])
def test_one_step_for_a_rollout_where_the_paper_takes_one_at_each_alignment(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path, alignment: str
) -> None:
    settings = QUICK.model_copy(update={"alignment": alignment, "steps": 1, "ema": None, "optimiser": "adamw"})
    _, log = _fit(boards, config, tmp_path, settings)
    torch.manual_seed(7)
    model = LatentReasoner(config)
    x, y = map(torch.from_numpy, boards.batch(0, 8, 7))
    if alignment == "sum":
        loss = model(x, y).loss
    else:
        before = model(x, count=3, cut=alignment == "last").state
        loss = model(x, y, state=before, first=3, count=1).loss
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    settings.optimiser_for(model).step()
    found = LatentReasoner.from_pretrained(tmp_path / "checkpoint")
    for (name, weight), (_, wanted) in zip(found.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, msg=name, rtol=1e-4, atol=2e-5)


def test_the_average_is_not_moved_inside_a_rollout_and_its_decay_grows(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    heads = {}
    for rollouts in (1, 2, 3):
        settings = QUICK.model_copy(update={"steps": 4 * rollouts, "ema": 0.5, "ema_warmup": True})
        _fit(boards, config, tmp_path / str(rollouts), settings)
        heads[rollouts] = [
            LatentReasoner.from_pretrained(tmp_path / str(rollouts) / folder).head.weight
            for folder in ("checkpoint/raw", "checkpoint")
        ]
    torch.manual_seed(7)
    average = LatentReasoner(config).head.weight.detach()
    for rollouts, decay in ((1, 1 / 10), (2, 2 / 11), (3, 3 / 12)):
        average = decay * average + (1 - decay) * heads[rollouts][0]
        torch.testing.assert_close(heads[rollouts][1], average, rtol=1e-4, atol=1e-6)


def test_batches_cover_an_epoch_and_are_shared_among_processes(boards: Boards) -> None:
    rows = [tuple(row) for row in boards.inputs.tolist()]
    assert len(set(rows)) == 40
    drawn = [tuple(row) for rollout in range(3) for row in boards.batch(rollout, 12, 0)[0].tolist()]
    assert len(set(drawn)) == 36 and set(drawn) < set(rows)  # Four fill no batch.
    assert [tuple(row) for row in boards.batch(3, 12, 0)[0].tolist()] != drawn[:12]  # another order
    halves = [boards.batch(1, 12, 0, process, 2)[0] for process in (0, 1)]
    assert np.array_equal(np.concatenate(halves), boards.batch(1, 12, 0)[0])
    assert len(boards.batch(0, 4000, 0)[0]) == 40


def test_copies_are_drawn_anew_for_every_rollout_and_again_for_the_same_one(boards: Boards) -> None:
    def shift(inputs: Any, labels: Any, draw: np.random.Generator) -> tuple[Any, Any]:
        by = int(draw.integers(0, 2**40))
        return inputs + by, labels + by

    copied = Boards(boards.inputs, boards.labels, shift)
    first, again, later = (copied.batch(rollout, 40, 0)[0].max() for rollout in (0, 0, 1))
    assert first == again != later


def test_a_pool_of_copies_has_so_many_of_each_board_and_itself(boards: Boards) -> None:
    def shift(inputs: Any, labels: Any, draw: np.random.Generator) -> tuple[Any, Any]:
        by = 10 * draw.integers(1, 2**40, (len(inputs), 1))
        return inputs + by, labels + by

    copied, seen = Boards(boards.inputs, boards.labels, shift), set[tuple[int, int]]()
    for rollout in range(60):
        inputs, labels = copied.batch(rollout, 40, 0, pool=3)
        by = inputs[:, 0] // 10
        assert np.array_equal(labels // 10, np.repeat(by[:, None], 16, 1))
        rows = {tuple(row): number for number, row in enumerate(boards.inputs.tolist())}
        seen |= {(rows[tuple(row)], int(each)) for row, each in zip((inputs % 10).tolist(), by, strict=True)}
    numbers = [len({by for row, by in seen if row == board}) for board in range(40)]
    assert numbers == [4] * 40 and all((board, 0) in seen for board in range(40))
    parts = [copied.batch(3, 40, 0, process, 2, 3)[0] for process in (0, 1)]
    assert np.array_equal(np.concatenate(parts), copied.batch(3, 40, 0, pool=3)[0])


def test_a_training_draws_from_the_pool_that_it_is_given(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    drawn: list[tuple[int, ...]] = []

    def turned(inputs: Any, labels: Any, draw: np.random.Generator) -> tuple[Any, Any]:
        by = draw.integers(1, 16)
        drawn.extend((*row, by) for row in inputs.tolist())
        return np.roll(inputs, by, 1), np.roll(labels, by, 1)

    copied = Boards(boards.inputs[:8], boards.labels[:8], turned)
    _fit(copied, config, tmp_path, QUICK.model_copy(update={"steps": 80, "symmetry_pool": 1}))
    # Twenty rollouts, of each board itself and one copy.
    assert len(set(drawn)) == 8 < len(drawn) < 8 * 20


def test_batches_of_several_processes_are_together_that_of_one(boards: Boards) -> None:
    def stir(inputs: Any, labels: Any, draw: np.random.Generator) -> tuple[Any, Any]:
        by = draw.integers(0, 2**40, (len(inputs), 1))
        return inputs + by, labels + by

    for each in (boards, Boards(boards.inputs, boards.labels, stir)):
        whole = each.batch(3, 12, 5)
        parts = [each.batch(3, 12, 5, process, 3) for process in range(3)]
        for side in (0, 1):
            assert np.array_equal(np.concatenate([part[side] for part in parts]), whole[side])


def test_checkpointed_updates_have_the_same_losses(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = _fit(boards, config, tmp_path / "plain")
    calls = []
    attention = TransformerBlock._attention

    def counted(block: TransformerBlock, z: torch.Tensor, positions: Rotation) -> torch.Tensor:
        calls.append(1)
        return attention(block, z, positions)

    monkeypatch.setattr(TransformerBlock, "_attention", counted)
    saving = QUICK.model_copy(update={"gradient_checkpointing": True})
    _, rows = _fit(boards, config, tmp_path / "saving", saving)
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert len(calls) == 24 * config.updates * 2  # each once more in its backward pass


def test_a_training_that_diverges_ends_with_its_step(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"^step \d: the loss is nan, the training has diverged; give a lower"):
        _fit(boards, config, tmp_path, QUICK.model_copy(update={"learning_rate": 1e38}))


def test_validation_is_looked_at_every_so_many_rollouts_and_changes_nothing(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"judge_every": 2, "steps": 16, "ema": None})
    _, log = _fit(boards, config, tmp_path / "judged", settings, validation=boards)
    assert [row["step"] for row in log if "accuracy" in row] == [8, 16]
    model = LatentReasoner.from_pretrained(tmp_path / "judged/checkpoint")
    judged = curve(model, boards, config.segments)
    assert log[-1]["accuracy"] == judged["accuracy"][-1] and log[-1]["cell_accuracy"] == judged["cells"][-1]
    _, plain = _fit(boards, config, tmp_path / "plain", settings.model_copy(update={"judge_every": None}))
    assert [row["loss"] for row in plain] == [row["loss"] for row in log]


@pytest.mark.parametrize("ema", [0.9, None])
def test_the_best_look_is_the_checkpoint_and_the_last_step_beside_it(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path, ema: float | None
) -> None:
    """One cell of each board is judged, by labels that training does not know: chance goes up and down."""
    draw = np.random.default_rng(8)
    labels = np.full((40, 16), -100)
    labels[np.arange(40), draw.integers(0, 16, 40)] = draw.integers(2, 6, 40)
    unseen = Boards(boards.inputs, labels)
    settings = QUICK.model_copy(
        update={"judge_every": 1, "steps": 40, "ema": ema, "keep": "best", "learning_rate": 0.01}
    )
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 21

    with pytest.raises(TrainingStopped, match="step 24 of 40"):
        _fit(boards, config, tmp_path / "stopped", settings, validation=unseen, should_stop=stop)
    _, rest = _fit(boards, config, tmp_path / "stopped", settings, validation=unseen)
    numbers, log = _fit(boards, config, tmp_path / "whole", settings, validation=unseen)
    looks = [row for row in log if "accuracy" in row]
    assert [row["step"] for row in looks] == list(range(4, 41, 4))
    kept = [row["kept_accuracy"] for row in looks]
    assert kept == np.maximum.accumulate(kept).tolist() and len(set(kept)) > 1
    assert [row["kept_accuracy"] for row in rest if "accuracy" in row] == kept[6:]
    assert looks[-1]["kept_step"] == numbers["kept step"] == looks[kept.index(kept[-1])]["step"]
    if ema is None:
        assert kept == np.maximum.accumulate([row["accuracy"] for row in looks]).tolist()
    folder = tmp_path / "whole" / "checkpoint"
    best, last, again = map(LatentReasoner.from_pretrained, (folder, folder / "last", tmp_path / "stopped/checkpoint"))
    assert curve(best, unseen, 4)["accuracy"][-1] == kept[-1]
    assert torch.equal(best.head.weight, last.head.weight) == (kept.index(kept[-1]) == len(kept) - 1)
    assert torch.equal(best.head.weight, again.head.weight)
    if ema is None:
        assert curve(last, unseen, 4)["accuracy"][-1] == looks[-1]["accuracy"]
    else:
        _fit(boards, config, tmp_path / "plain", settings.model_copy(update={"keep": "last"}), validation=unseen)
        plain = LatentReasoner.from_pretrained(tmp_path / "plain" / "checkpoint")
        assert torch.equal(plain.head.weight, last.head.weight)
    assert not list(folder.glob("best*")) and len(list((tmp_path / "whole/saves").glob("best-*"))) == 1
    assert set(curves(folder, unseen, 2)) == {"averaged", "raw", "best"} - ({"averaged"} if ema is None else set())


def test_of_looks_that_solve_no_board_the_one_with_most_right_cells_is_kept(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    unseen = Boards(boards.inputs, np.random.default_rng(5).integers(2, 6, boards.inputs.shape))
    settings = QUICK.model_copy(
        update={"judge_every": 1, "steps": 40, "ema": None, "keep": "best", "learning_rate": 0.01}
    )
    numbers, log = _fit(boards, config, tmp_path, settings, validation=unseen)
    looks = [row for row in log if "accuracy" in row]
    cells = [row["cell_accuracy"] for row in looks]
    assert not any(row["accuracy"] for row in looks) and 0 < int(np.argmax(cells)) < len(cells) - 1
    assert numbers["kept step"] == looks[int(np.argmax(cells))]["step"]
    kept = LatentReasoner.from_pretrained(tmp_path / "checkpoint")
    assert curve(kept, unseen, config.segments)["cells"][-1] == max(cells)


def test_the_last_step_is_looked_at_where_one_is_to_be_chosen(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"judge_every": 100, "steps": 8, "keep": "best"})
    _, log = _fit(boards, config, tmp_path, settings, validation=boards)
    assert ["kept_accuracy" in row for row in log] == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"steps": 10}, "steps: 10 is no whole number of rollouts of 4 steps; take 12")],
)
def test_bad_settings_get_one_line(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _fit(boards, config, tmp_path, QUICK.model_copy(update=changes))


def test_boards_that_the_model_cannot_read_are_refused(config: LatentReasonerConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokens up to 9; the model reads 16 cells with tokens up to 5"):
        _fit(Boards(np.full((4, 16), 9), np.full((4, 16), 9)), config, tmp_path)
    with pytest.raises(ValueError, match="no boards"):
        Boards(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64))


def test_it_learns(config: LatentReasonerConfig, tmp_path: Path) -> None:
    """Each row of a grid has every digit once; one of each row is left out."""
    draw = np.random.default_rng(0)
    labels = draw.permuted(np.tile(np.arange(2, 6), (400, 4, 1)), axis=2)
    inputs = labels.copy()
    holes = draw.integers(0, 4, (400, 4))
    np.put_along_axis(inputs, holes[..., None], 1, 2)
    boards = Boards(inputs.reshape(400, 16)[:350], labels.reshape(400, 16)[:350])
    unseen = Boards(inputs.reshape(400, 16)[350:], labels.reshape(400, 16)[350:])
    settings = QUICK.model_copy(update={"steps": 240, "batch_size": 64, "learning_rate": 3e-3, "ema_warmup": True})
    numbers, _ = _fit(boards, config, tmp_path, settings)
    model = LatentReasoner.from_pretrained(tmp_path / "checkpoint")
    shares = curve(model, unseen, 4)["accuracy"]
    assert shares[-1] > 0.5, shares  # Guessing the four digits is right once in 256.
    assert numbers["parameters"] == model.num_parameters() and numbers["rollouts"] == 60

    # Over 256 updates in bfloat16, as many as the paper's, what was learnt stands: rounding does not add up.
    x = torch.from_numpy(unseen.inputs)
    exact = list(segments(model, x, range(86)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = list(segments(model, x, range(86)))
    last, same = rounded[-1].state[0].float(), exact[-1].state[0]
    torch.testing.assert_close(last.square().mean(-1), torch.ones_like(last[..., 0]), rtol=1e-3, atol=0)
    assert (last - same).norm() < 0.25 * same.norm()
    agree = [(a.logits.argmax(-1) == b.logits.argmax(-1)).double().mean() for a, b in zip(exact, rounded, strict=True)]
    assert min(agree) > 0.98, agree


def test_compiled_updates_have_the_same_losses(boards: Boards, tmp_path: Path) -> None:
    config = LatentReasonerConfig("_1234", 16, hidden_size=32, heads=4, updates=2, segments=2)
    settings = QUICK.model_copy(update={"steps": 4, "precision": "float32"})
    _, plain = _fit(boards, config, tmp_path / "plain", settings)
    counters.clear()
    _, compiled = _fit(boards, config, tmp_path / "compiled", settings.model_copy(update={"compile": True}))
    assert counters["stats"]["unique_graphs"] > 0
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in plain], rel=1e-5)


def test_bfloat16_on_a_cpu_is_for_the_products_alone(
    boards: Boards, config: LatentReasonerConfig, tmp_path: Path
) -> None:
    seen = []

    def watch() -> bool:
        seen.append(torch.get_float32_matmul_precision())
        return False

    _, plain = _fit(boards, config, tmp_path / "plain")
    bfloat16 = QUICK.model_copy(update={"precision": "bfloat16"})
    _, rounded = _fit(boards, config, tmp_path / "rounded", bfloat16, should_stop=watch)
    assert set(seen) == {"medium"} and torch.get_float32_matmul_precision() == "highest"
    losses = [[row["loss"] for row in log] for log in (plain, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    found = LatentReasoner.from_pretrained(tmp_path / "rounded" / "checkpoint")
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    x = torch.from_numpy(boards.inputs[:8])
    assert found(x).logits.dtype == torch.float32


def test_products_round_their_factors_and_nothing_else() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(64, 96), torch.randn(96, 80)
    with pytest.raises(ZeroDivisionError), bfloat16_products():
        found = a @ b
        1 / 0  # noqa: B018
    assert torch.equal(a @ b, torch.mm(a, b)) and torch.get_float32_matmul_precision() == "highest"
    rounded = a.bfloat16().float() @ b.bfloat16().float()
    # The sums are float32's in either case; a processor without such instructions rounds nothing.
    assert torch.allclose(found, rounded, atol=1e-4) or torch.equal(found, a @ b)
