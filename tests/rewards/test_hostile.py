"""Completions written to run code, to hang, or to exhaust memory: scored or named, and nothing of them is run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.contract import score
from rewards.pool import close_shared
from rewards.registry import load
from rewards.samples import RIGHT, SAMPLES, sample_rows

CALLS = [
    "__import__('pathlib').Path({flag}).touch()",
    "open({flag}, 'w').close()",
    "exec(\"open({flag}, 'w')\")",
    "eval(\"open({flag}, 'w')\")",
    "().__class__.__base__.__subclasses__()[0].__init__.__globals__['sys'].modules['os'].mknod({flag})",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', {flag}])",
    "(lambda: open({flag}, 'w'))()",
    "f\"{{open({flag}, 'w')}}\"",
    "'{{0.__class__}}'.format(open({flag}, 'w'))",
    "globals()['__builtins__']['open']({flag}, 'w')",
    "getattr(__import__('o' + 's'), 'system')('touch ' + {flag})",
    "import os; os.mknod({flag})",
    "Symbol('x').func.__init__.__globals__['open']({flag}, 'w')",
    "sympify(\"open({flag}, 'w')\")",
    "$(touch {flag})",
    "`touch {flag}`",
    "!!python/object/apply:os.mknod [{flag}]",
    "cos\\nR.\\x80\\x04c__builtin__\\nopen\\n({flag})",
]
LARGE = [
    "9**9**9**9",
    "9^9^9^9",
    "99**98**97",
    "2^{2^{2^{2^{2^{2^{2}}}}}}",
    "10^{10^{10}}",
    "5^5^5^5",
    "((((((9^9)^9)^9)^9)^9)^9)",
    "100000!",
    "((9!)!)!",
    "9!!!!!!!!",
    r"\binom{10^{9}}{10^{8}}",
    r"\sum_{n=1}^{10^{12}} \frac{1}{n}",
    r"\prod_{n=1}^{10^{9}} n",
    r"\int_0^{1} x^{x^{x^{x}}} dx",
    r"\lim_{x \to \infty} (1+\frac{1}{x})^{x^{x}}",
    r"\sqrt[10^{9}]{2^{10^{9}}}",
    "7" * 1_000_000,
    "0." + "3" * 500_000,
    "1/" * 50_000 + "1",
    "1e999999999",
    "(1+2" + "+3" * 100_000 + ")",
]
DEEP = [
    "(" * 50_000 + "1" + ")" * 50_000,
    "[" * 50_000,
    r"\frac{1}{" * 5_000 + "1" + "}" * 5_000,
    r"\boxed{" * 20_000,
    r"\boxed{" * 5_000 + "1" + "}" * 5_000,
    "<answer>" * 20_000,
    "<answer>" * 2_000 + "1" + "</answer>" * 2_000,
    "<think>" * 20_000 + "</think>" * 20_000,
    "-" * 100_000 + "1",
    r"\sqrt{" * 3_000 + "2" + "}" * 3_000,
    "{" * 100_000,
]
ODD = [
    "\x1b[2J\x1b[31mmauve\x1b[0m",
    "\x1b]0;title\x07mauve",
    "\x00\x00mauve\x00",
    "\u202egnorw\u202c",
    "\ufeffmauve\u200b\u200d",
    "r\u0300e\u0301d\u0302" * 5_000,
    "٣٤٥",
    "１２３",
    "²³¹",
    "🦊" * 10_000,
    "\ud83d",
    "\r\n" * 50_000,
    "a" * 200_000 + "!",
    " " * 300_000 + "1",
    "1" + "\t" * 300_000,
    "answer: " * 30_000,
    "A) " * 50_000,
    "--" * 100_000,
]

# Scorers of reasoning-gym that parse JSON, logic, moves, factors and fractions, and the base of many.
GYM = [
    f"rg:{name}"
    for name in (
        "caesar_cipher",
        "graph_color",
        "propositional_logic",
        "rubiks_cube",
        "prime_factorization",
        "number_sorting",
    )
]


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    yield
    close_shared()


@pytest.mark.parametrize("name", [*sorted(SAMPLES), *GYM])
def test_nothing_runs_and_nothing_hangs(name: str, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    texts = [each.format(flag=repr(str(flag))) for each in CALLS] + LARGE + DEEP + ODD
    assert len(texts) >= 60
    completions = [form % text for form in ("%s", r"\boxed{%s}", "<answer>%s</answer>") for text in texts]
    if name in GYM:
        pytest.importorskip("reasoning_gym")
    sample = sample_rows(name)[0]
    row = {key: value for key, value in sample.items() if key != RIGHT}
    columns = {key: [value] * len(completions) for key, value in row.items()}
    reward = load(name)
    began = time.monotonic()
    scores = score(reward, [""] * len(completions), completions, **columns)
    assert not flag.exists()
    assert time.monotonic() - began < 120, "a hang: each of the few that reach a worker is stopped after 2 s"
    for number, value in enumerate(scores.values):
        assert value is not None or number in scores.notes, completions[number][:80]
        # Some are short enough, some hold digits that are right in their cells, as a folder's name may.
        small = value in (0.0, None) or (name == "sudoku_cells" and value < 0.5) or (name in GYM and value <= 0.05)
        assert small or name == "short", completions[number]
    # A wrong answer that comes after them is still wrong, and a right one right: nothing was patched.
    right = str(sample[RIGHT])
    after = score(reward, ["", ""], [right, "\x1b[0m no such answer"], **{k: [v] * 2 for k, v in row.items()})
    assert after.values[0] == 1.0 and ((after.values[1] or 0.0) <= 0.05 or name == "short")
