"""docs/recipes.md says what the code says."""

from __future__ import annotations

import re

import yaml

from pipelines.chain import expand
from pipelines.recipe import validate
from pipelines.source import Source
from tools.recipe_reference import PAGE, reference


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m tools.recipe_reference"


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(r"(?m)^\| `.*\|$", reference())
    assert rows and not [row for row in rows if re.search(r"\|\s*\|$", row)]


def test_every_example_is_a_recipe() -> None:
    examples = re.findall(r"(?ms)^```yaml\n(.*?)^```$", reference())
    assert examples
    for text in examples:
        assert expand(validate(Source(yaml.safe_load(text), "example")))
