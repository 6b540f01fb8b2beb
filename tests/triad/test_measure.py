"""The measurements, on a model whose every probability is known in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from engines.base import Decoding, Engine
from selfrefine.triad.measure import MeasureSettings, Pair, Pool, log_mean_exp, measure
from selfrefine.triad.similarity import Lexical
from selfrefine.triad.templates import parse_pair, parse_question
from selfrefine.triad.vqa import ImageQuestionAnswer
from tasks.draw import seed64
from tasks.problem import Picture
from tests.triad.tabular import PROMPTS, Tabular, answer, question

IMAGES, QUESTIONS, ANSWERS = 6, 4, 5
PICTURES = [Picture(f"i{i}", f"i{i}.png") for i in range(IMAGES)]


def random_joint(seed: int, *, image_free: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.ones(QUESTIONS * ANSWERS), 1 if image_free else IMAGES)
    return np.broadcast_to(joint, (IMAGES, QUESTIONS * ANSWERS)).reshape(IMAGES, QUESTIONS, ANSWERS)


def triad(joint: np.ndarray, **options: Sequence[str]) -> ImageQuestionAnswer:
    engine = Tabular(joint, **options)
    assert isinstance(engine, Engine)
    return ImageQuestionAnswer(engine, PROMPTS, Lexical(), Decoding())


def everything() -> list[Pair]:
    cells = np.ndindex(IMAGES, QUESTIONS, ANSWERS)
    return [Pair(f"{i}/{q}/{a}", PICTURES[i], question(q), answer(a)) for i, q, a in cells]


def measured(joint: np.ndarray, pairs: Sequence[Pair], settings: MeasureSettings) -> list[dict[str, object]]:
    return [dict(row) for row in measure(pairs, Pool(pairs), triad(joint), Lexical(), settings, 0)]


WEIGHING = MeasureSettings(rebuild=False, samples=0, other_images=IMAGES - 1, edge_images=IMAGES)


@pytest.mark.parametrize("seed", range(3))
def test_both_orders_of_a_pair_have_one_probability(seed: int) -> None:
    """log p(q|i) + log p(a|i,q) = log p(a|i) + log p(q|i,a) = log p(q,a|i), as the three prompts report them."""
    joint, pairs = random_joint(seed), everything()
    scorer = triad(joint)
    pictures, questions = [p.picture for p in pairs], [p.question for p in pairs]
    answers, ids = [p.answer for p in pairs], [p.id for p in pairs]
    a = np.reshape(scorer.log_answer(pictures, questions, answers), joint.shape)
    q = np.reshape(scorer.log_question(pictures, questions, answers, ids, 0), joint.shape)
    both = np.reshape(scorer.log_pair(pictures, questions, answers, ids, 0), joint.shape)
    np.testing.assert_allclose(np.log(joint.sum(2))[:, :, None] + a, both, atol=1e-12)
    np.testing.assert_allclose(np.log(joint.sum(1))[:, None, :] + q, both, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_visual_gain_is_the_mutual_information(seed: int) -> None:
    """E[log p(A|I,Q) − log p(A|Q)] = I(A; I | Q), images equally likely and asked alike; so it is never negative."""
    conditional = random_joint(seed)
    conditional = conditional / conditional.sum(2, keepdims=True)  # p(a | i, q)
    rows = measured(conditional / QUESTIONS, everything(), WEIGHING)
    seen = np.reshape([row["log_answer"] for row in rows], conditional.shape)
    others = np.reshape([row["log_answer_blind"] for row in rows], conditional.shape)
    np.testing.assert_allclose(seen, np.log(conditional), atol=1e-12)
    # The blind term leaves the pair's own image out; with it, it is the marginal over all images.
    marginal = (np.exp(seen) + (IMAGES - 1) * np.exp(others)) / IMAGES
    gain = (conditional / QUESTIONS / IMAGES * (seen - np.log(marginal))).sum()

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(-1)

    information = (entropy(conditional.mean(0)) - entropy(conditional).mean(0)).mean()
    assert gain == pytest.approx(information, abs=1e-12)
    assert gain > 0.01


def test_a_model_that_does_not_look_gains_nothing_at_all() -> None:
    for row in measured(random_joint(0, image_free=True), everything(), WEIGHING):
        assert row["log_answer"] == row["log_answer_blind"]
        assert row["log_question"] == row["log_question_blind"]
        assert row["image_edge"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_image_edge_is_bounded_by_the_number_of_images_and_exact(seed: int) -> None:
    joint = random_joint(seed)
    rows = measured(joint, everything(), WEIGHING)
    edges = np.reshape([row["image_edge"] for row in rows], joint.shape)
    np.testing.assert_allclose(edges, np.log(joint) - np.log(joint.mean(0)), atol=1e-12)
    assert edges.max() <= math.log(IMAGES)
    # An image that alone explains its pair reaches the bound.
    sure = np.full(joint.shape, 1e-12)
    for i in range(IMAGES):
        sure[i, i % QUESTIONS, i % ANSWERS] = 1
    top = measured(sure, [Pair("x", PICTURES[1], question(1), answer(1)), *everything()], WEIGHING)[0]["image_edge"]
    assert top == pytest.approx(math.log(IMAGES), abs=1e-9)


def test_rebuilding_is_greedy_and_compared_by_type() -> None:
    joint = random_joint(1)
    settings = MeasureSettings(samples=0, other_images=0, edge_images=0)
    for (i, q, a), row in zip(np.ndindex(joint.shape), measured(joint, everything(), settings), strict=True):
        again = int(joint[i, q].argmax())
        assert row["rebuilt_answer"] == answer(again)
        assert row["sim_answer"] == (again == a)
        rebuilt = int(joint[i, :, a].argmax())
        assert row["rebuilt_question"] == question(rebuilt)
        assert row["sim_question"] == pytest.approx(1.0 if rebuilt == q else 3 / 4)  # of four words three are shared
        assert row["agreement"] is row["log_answer"] is row["log_answer_blind"] is row["image_edge"] is None


def test_agreement_is_the_share_of_samples_and_tends_to_the_probability() -> None:
    joint = random_joint(2)
    settings = MeasureSettings(rebuild=False, samples=400, temperature=1.0, other_images=0, edge_images=0)
    pairs = everything()[: 2 * ANSWERS]
    rows = measured(joint, pairs, settings)
    for pair, row in zip(pairs, rows, strict=True):
        i, q, a = (int(part) for part in pair.id.split("/"))
        share = joint[i, q, a] / joint[i, q].sum()
        # Five standard deviations of a share of 400.
        assert row["agreement"] == pytest.approx(share, abs=5 * math.sqrt(0.25 / 400))
    assert measured(joint, pairs, settings) == rows
    assert list(measure(pairs[3:5], Pool(pairs), triad(joint), Lexical(), settings, 0)) == rows[3:5]


def test_what_the_engine_could_not_do_is_none_and_never_nought() -> None:
    joint, pairs = random_joint(0), everything()
    broken = triad(joint, broken=["i2.png"])
    settings = MeasureSettings(samples=2, other_images=1, edge_images=2)
    rows = list(measure(pairs, Pool(pairs), broken, Lexical(), settings, 0))
    pool = Pool(pairs)
    for pair, row in zip(pairs, rows, strict=True):
        own = pair.picture.id == "i2"
        assert (row["agreement"] is None) == (row["log_answer"] is None) == (row["sim_answer"] is None) == own
        stand_in = pool.others(pair, 1, 0)[0].id == "i2"
        assert (row["log_answer_blind"] is None) == stand_in
        assert (row["image_edge"] is None) == (own or stand_in)


def test_the_pool_gives_other_images_of_the_same_type_each_once() -> None:
    pairs = [*everything(), Pair("y", Picture("yes", "yes.png"), "is it?", "yes")]
    pool = Pool(pairs)
    for pair in pairs[:-1]:
        for count in (0, 1, 3, IMAGES - 1, 50):
            others = [picture.id for picture in pool.others(pair, count, 0)]
            assert len(others) == len(set(others)) == min(count, IMAGES - 1)
            assert not {pair.picture.id, "yes"} & set(others)
    assert pool.others(pairs[-1], 8, 0) == []  # the only one of its type
    lonely = measured(random_joint(0), pairs[:1], WEIGHING)[0]
    assert lonely["log_answer"] is not None and lonely["log_answer_blind"] is lonely["image_edge"] is None
    assert len({tuple(p.id for p in Pool(pairs).others(pairs[0], 2, seed)) for seed in range(20)}) > 1


def test_proposals_follow_the_table_and_their_own_seed() -> None:
    joint = random_joint(3)
    warm = triad(joint).with_decoding(temperature=1.0)
    proposals = warm.propose(PICTURES, 300, 0)
    counts = np.zeros(joint.shape)
    for i, candidates in enumerate(proposals):
        for candidate in candidates:
            q, a = int(candidate.cause.rstrip("?").rpartition(" ")[2]), int(candidate.effect.removeprefix("value"))
            counts[i, q, a] += 1
            assert parse_pair(candidate.raw) == (candidate.cause, candidate.effect)
    assert np.abs(counts / 300 - joint).max() < 5 * math.sqrt(0.25 / 300)
    assert warm.propose(PICTURES[::-1], 300, 0)[::-1] == proposals
    assert warm.propose(PICTURES, 300, 1) != proposals
    assert seed64("propose", 0, "i0/0") >> 1 < 2**63  # engines take signed seeds
    assert parse_question("Instruction: " + question(0)) == question(0)


LOGS = st.lists(st.floats(-1e4, 50), min_size=1, max_size=20)


@given(LOGS)
def test_log_mean_exp_is_scipys(logs: list[float]) -> None:
    assert log_mean_exp(logs) == pytest.approx(float(logsumexp(logs)) - math.log(len(logs)), abs=1e-9)
    assert log_mean_exp([logs[0]] * 7) == logs[0]


def test_log_mean_exp_at_the_edges() -> None:
    assert log_mean_exp([-math.inf, -math.inf]) == -math.inf
    assert log_mean_exp([-math.inf, 0.0]) == pytest.approx(-math.log(2))
    assert math.isnan(log_mean_exp([math.nan, 0.0])) and math.isnan(log_mean_exp([0.0, math.nan]))
