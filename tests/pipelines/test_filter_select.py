"""The gates of a selection: least values and bands; what is missing never gets through."""

from __future__ import annotations

import pytest

from pipelines.stages.filter import Select

VALUES = {"agreement": 0.5, "visual_share": 0.5, "image_edge": None}


@pytest.mark.parametrize(
    ("gates", "through"),
    [
        ({}, True),
        ({"agreement": 0.5}, True),
        ({"agreement": 0.51}, False),
        ({"agreement": [0.25, 0.75]}, True),
        ({"agreement": [0.5, 0.5]}, True),
        ({"agreement": [0.0, 0.49]}, False),
        ({"agreement": [0.25, 0.75], "visual_share": 0.6}, False),
        ({"image_edge": -100}, False),
        ({"image_edge": [-100, 100]}, False),
    ],
)
def test_gates(gates: dict[str, object], through: bool) -> None:
    select = Select.model_validate({"gates": gates})
    assert select.passes(VALUES) is through
    # What the manifest records says the same.
    assert Select.model_validate(select.model_dump(mode="json")).passes(VALUES) is through
