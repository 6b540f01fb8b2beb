"""The reward `maths` against math-verify called plainly, on answers that are easy and on some that never end."""

from __future__ import annotations

import time

from rewards.maths import maths

EASY, PATHOLOGICAL = 1000, 10


def easy() -> tuple[float, float]:
    """Seconds of plain math-verify and of ours, for the same verdicts on numbers, half of them wrong."""
    from math_verify import parse, verify

    golds = [str(number) for number in range(EASY)]
    answers = [gold if number % 2 else str(number + 1) for number, gold in enumerate(golds)]
    seconds, verdicts = [], []
    for grade in (
        lambda: [
            float(verify(parse(f"${gold}$"), parse(f"${text}$"))) for gold, text in zip(golds, answers, strict=True)
        ],
        lambda: maths([""] * EASY, answers, answer=golds),
    ):
        start = time.perf_counter()
        verdicts.append(grade())
        seconds.append(time.perf_counter() - start)
    assert verdicts[0] == verdicts[1], "the two do not agree"
    return seconds[0], seconds[1]


def mixed() -> float:
    """Seconds for 1,000 answers: numbers, fractions, roots and sets, and ten that make sympy hang or fill memory."""
    kinds = (r"\frac{{{0}}}{{7}}", r"\sqrt{{{0}}}", r"{0} + x", r"\{{1, {0}\}}", "{0}", "{0}.50")
    golds = [kinds[number % len(kinds)].format(number + 2) for number in range(EASY)]
    answers = list(golds)
    for number in range(0, EASY, 3):
        answers[number] = kinds[number % len(kinds)].format(f"({number + 2})")
    monsters = (
        r"9^{9^{9^{9}}}",
        r"(10^{7})!",
        r"\int_0^{\infty} x^{x^x} dx",
        "1" * 100_000,
        "(" * 5000 + "1" + ")" * 5000,
    )
    for number in range(PATHOLOGICAL):
        answers[number * 97] = monsters[number % len(monsters)]
    maths([""], [r"\sqrt{2}"], answer=[r"2^{1/2}"])  # starts the workers, once per process
    start = time.perf_counter()
    maths([""] * EASY, answers, answer=golds)
    return time.perf_counter() - start
