"""docs/recipes.md says what the code says."""

from __future__ import annotations

import re

from tools.recipe_reference import PAGE, reference


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m tools.recipe_reference"


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(r"(?m)^\| `.*\|$", reference())
    assert rows and not [row for row in rows if re.search(r"\|\s*\|$", row)]
