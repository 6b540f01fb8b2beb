"""How a call is cut into pieces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from engines.base import Request
from engines.replicated.pieces import piece_size, pieces
from engines.settings import DiffusionSettings, TransformersSettings, VllmSettings


def about(image: int | None, text: str = "") -> Request:
    return Request("r", [{"role": "user", "content": text}], None if image is None else f"{image}.png")


@given(
    images=st.lists(st.none() | st.integers(0, 12), max_size=120),
    texts=st.sampled_from(["", "ab"]),
    size=st.integers(1, 9),
)
def test_each_request_is_in_one_piece_and_an_image_too_unless_it_has_very_many(
    images: list[int | None], texts: str, size: int
) -> None:
    requests = [about(image, texts[i % 2 : i % 2 + 1]) for i, image in enumerate(images)]
    found = list(pieces(requests, size))
    assert sorted(i for piece in found for i in piece) == list(range(len(requests)))
    assert all(0 < len(piece) <= 4 * size for piece in found)
    for subject in {(r.image, None if r.image else r.messages[0]["content"]) for r in requests}:
        among = [
            piece
            for piece in found
            if any(
                (requests[i].image, None if requests[i].image else requests[i].messages[0]["content"]) == subject
                for i in piece
            )
        ]
        count = sum((r.image, None if r.image else r.messages[0]["content"]) == subject for r in requests)
        assert len(among) == -(-count // (4 * size))
    # No two pieces that stand together would fit into one.
    assert all(len(a) + len(b) > size for a, b in itertools.pairwise(found))


def test_a_long_call_is_read_as_it_is_asked_for() -> None:
    class Endless(Sequence[Request]):
        read = 0

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, place: int) -> Request:  # type: ignore[override]
            self.read = max(self.read, place)
            return about(place // 3)

    requests = Endless()
    cut = pieces(requests, 64)
    assert sum(len(next(cut)) for _ in range(100)) > 6000
    assert requests.read < 12_000


def test_pieces_do_not_depend_on_the_number_of_workers() -> None:
    for kind in (TransformersSettings, VllmSettings, DiffusionSettings):
        assert piece_size(kind(replicas=1)) == piece_size(kind(replicas=7)) > 1  # type: ignore[call-arg]
