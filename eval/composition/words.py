"""What an arithmetic word problem is made of: who it is about, what is done, in what, and in which order it is told."""

from __future__ import annotations

import re

from eval.composition.graph import Graph, Module
from tasks.problem import Problem

ROOTS = ("entity", "operation", "unit", "order")
GRAPH = Graph(
    ROOTS,
    (
        Module("wording", ("operation", "unit")),
        Module("plan", ("operation", "order")),
        Module("cast", ("entity", "operation")),
    ),
)
"""The graph unless others are given: a choice of ours."""

_CALCULATION = re.compile(r"<<([^<>=]+)=[^<>]*>>")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_UNITS = {
    "money": r"\$|€|£|dollars?|cents?|euros?|pounds? sterling",
    "time": r"seconds?|minutes?|hours?|days?|weeks?|months?|years?",
    "length": r"inch(?:es)?|feet|foot|yards?|miles?|(?:kilo|centi|milli)?met(?:er|re)s?|km|cm",
    "weight": r"ounces?|pounds?|(?:kilo)?grams?|tons?|kg",
    "volume": r"gallons?|(?:milli)?lit(?:er|re)s?|cups?|quarts?|pints?",
    "share": r"%|percent(?:age)?|fraction",
}
_UNIT = {unit: re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE) for unit, words in _UNITS.items()}
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+\b")


def factors(problem: Problem) -> dict[str, str] | str:
    """The roots of `GRAPH` for a problem, or why there are none.

    They are the columns `entity`, `operation`, `unit` and `order` where the problem has all four. Else they are read
    from the question and from a worked answer with its calculations in the form of GSM8K (arXiv 2110.14168),
    `<<48/2=24>>`, in the answer or any text column. `operation` has the signs that occur, `unit` is what the asking
    sentence wants (`money`, `time`, `length`, `weight`, `volume`, `share`, else `count`), `entity` how many are called
    by name inside of sentences (`none`, `one`, `more`), and `order` whether the numbers of the question are used as
    they are told (`told`) or not (`other`).
    """
    if all(problem.columns.get(root) is not None for root in ROOTS):
        return {root: str(problem.columns[root]) for root in ROOTS}
    texts = [problem.answer, *(text for text in problem.columns.values() if isinstance(text, str))]
    steps = next((found for text in texts if (found := _CALCULATION.findall(text))), [])
    if not steps:
        return "no calculation of the form <<48/2=24>>"
    signs = sorted({sign for step in steps for sign in re.findall(r"(?<=[\d)%])\s*([-+*/])", step)})
    if not signs:
        return "no operation in its calculations"
    names = set(_NAME.findall(problem.question))
    asked = _asking(problem.question)
    return {
        "entity": "none" if not names else "one" if len(names) == 1 else "more",
        "operation": " ".join(signs),
        "unit": next((unit for unit, words in _UNIT.items() if words.search(asked)), "count"),
        "order": _order(problem.question, steps),
    }


def _asking(question: str) -> str:
    """The last sentence that ends with a question mark; all of the text where none does."""
    asking = [sentence for sentence in re.split(r"(?<=[.!?])\s+", question) if sentence.endswith("?")]
    return asking[-1] if asking else question


def _order(question: str, steps: list[str]) -> str:
    told = [text.replace(",", "") for text in _NUMBER.findall(question)]
    used = [number for step in steps for text in _NUMBER.findall(step) if (number := text.replace(",", "")) in told]
    places = [told.index(number) for number in dict.fromkeys(used)]
    return "told" if places == sorted(places) else "other"
