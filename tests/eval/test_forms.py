"""Each form of an answer: what it reads, that it invents nothing, and that no text makes it slow."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.extract import FORMS, Forms, check_forms, extract
from eval.forms import LABELS
from rewards.normalise import normalise

SUDOKU = "2 3 | 4 1\n1 4 | 2 3\n----+----\n4 1 | 3 2\n3 2 | 1 4"
MAZE = "#.S#\n#.o#\n#.G#"


def read(form: str, text: str, options: tuple[str, ...] = (), gold: str = "42") -> str | None:
    """By both extractions, which differ for `auto` alone."""
    found = extract(text, gold, Forms(form, form), options)
    assert found.strict == found.flexible
    return found.strict


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        ("whole", " ](}\n", "](}"),
        ("whole", "<think>so</think>\n 5 apples ", "5 apples"),
        ("whole", " \n", None),
        ("yes_no", "Yes, that is a notice", "yes"),
        ("yes_no", "Notice that it is so", None),
        ("boxed", r"\boxed{1}, then \boxed{\frac{1}{2}} and \boxed{3", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1} or \boxed{ }", None),
        ("boxed", "1", None),
        ("hash", "Q\n#### 5\nQ\n#### 1,234 apples \nthat is all", "1,234 apples"),
        ("hash", "#### 5\n####\n", "5"),
        ("hash", "#### 3 #### 4", "4"),
        ("hash", "##### 5\n### 6", None),
        ("answer_tag", "<answer>a</answer> <ANSWER>\nb </answer> <answer>c", "b"),
        ("answer_tag", "the answer is b", None),
        ("cue", "The answer is 3. No: the answer is: 4.", "4."),
        ("cue", "**Final answer**: 7", "7"),
        ("cue", "**Answer:** `x_1` *7*\n", "x_1` *7"),
        ("cue", "**The answer is: 7.**", "7."),
        ("cue", "an answer isolated", None),
        ("cue", "the answer is", None),
        ("last_number", "17 of 1,234,567.50 dollars.", "1,234,567.50"),
        ("last_number", "1.2 and -3", "-3"),
        ("last_number", "from 5-3", "3"),
        ("last_number", "(5)-3 is 2.5e-3.", "2.5e-3"),
        ("last_number", "a third, or 1/3", "1/3"),
        ("last_number", ".5", ".5"),
        ("last_number", "CO2, x3 and B_12", None),
        ("last_number", "1,2,3", "3"),
        ("gsm8k_strict", "#### 5\n#### -1,000.", "5"),
        ("gsm8k_strict", "#### $5", None),
        ("gsm8k_flexible", "so $1,000. or -7 of them", "-7"),
        ("gsm8k_flexible", "so it costs $1,000.", "$1,000."),
        ("gsm8k_flexible", "none, none.", None),
        ("grid", f"1 2\n3 4\n\nso\n\n{SUDOKU}\n\nSolved in 1 go.", SUDOKU),
        ("grid", f"```\n{MAZE}\n```", MAZE),
        ("grid", f"x: 2\n{MAZE}\n1 2 3 4 5\n1 2 3 4 5", "1 2 3 4 5\n1 2 3 4 5"),
        ("grid", "[[0, 12],\n [-3, 4]]\n", "[[0, 12],\n [-3, 4]]"),
        ("grid", "It is 2341142341323214", None),
        ("grid", "It is\n2341142341323214", "2341142341323214"),
        ("grid", "- 3\n- 4\n\n1 2 3\nno", None),
        ("expression", "1 + 1 = 2\nso\n**(3 + 4) * 5 = 35**.\nIt is 35.", "(3 + 4) * 5 = 35"),
        ("expression", r"Answer: $\frac{3}{4} \times 8$", r"\frac{3}{4} \times 8"),
        ("expression", r"\[ (1-2)×3 \]", "(1-2)×3"),
        ("expression", "The answer is 6/(1-3/4).", "6/(1-3/4)"),
        ("expression", "2. -3*4", "-3*4"),
        ("expression", "x = 3*4\n24\n-3", None),
    ],
)
def test_forms(form: str, text: str, answer: str | None) -> None:
    assert read(form, text) == answer


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is B. Note that A is a common distractor.", "B"),
        ("The answer is C because I computed it.", "C"),
        ("The answer is A because it is so.", "A"),
        ("The answer is (A) red", "A"),
        ("**Answer:** **D**", "D"),
        ("**Answer**: option D, red", "D"),
        (r"The answer is $\boxed{\text{E}}$, not F.", "E"),
        ("<answer>(b)</answer> although the answer is C", "b"),
        ("The answer is B. Wait, the answer is C.", "C"),
        ("C", "C"),
        ("(c).", "c"),
        ("Option C", "C"),
        ("the answer is c", "c"),
        # Never guessed: words that look like labels, several labels, labels of no problem, no cue.
        ("The answer is I don't know.", None),
        ("Answer: A circle", None),
        ("the answer is a circle", None),
        ("I computed it, and A is wrong.", None),
        ("The answer is B or C.", None),
        ("The answer is B, or A", None),
        ("The answer is B/C", None),
        ("The answer is not B", None),
        ("The answer is B. Or the answer is unknown.", None),
        ("The answer is Blue", None),
        ("The answer is B-flat", None),
        ("The answer is C's", None),
        ("The answer is K", None),
        ("", None),
    ],
)
def test_options(text: str, label: str | None) -> None:
    assert read("option", text) == label


@pytest.mark.parametrize(
    ("text", "options", "label"),
    [
        ("The answer is E.", tuple("ABCD"), None),
        ("E", tuple("ABCDE"), "E"),
        ("The answer is 2.", ("1", "2"), "2"),
        ("The answer is 2.5", ("1", "2"), None),
        ("The answer is 2 apples", ("1", "2"), None),
        ("The answer is 2%", ("1", "2"), None),
        ("The answer is 12", ("1", "12"), "12"),
        ("The answer is (B)", ("(A)", "(B)"), "(B)"),
        ("The answer is C++", ("A", "B"), None),
        ("the answer is a.b", ("a.b", "a"), "a.b"),
    ],
)
def test_options_are_the_problem_s_own(text: str, options: tuple[str, ...], label: str | None) -> None:
    assert read("option", text, options) == label


# ── What users of other evaluations complained about ──────────────────────────────────────────────────────────────


def test_one_set_of_completions_read_strictly_and_flexibly() -> None:
    """lm-evaluation-harness PR 2034: .7847 of GSM8K flexibly, .2017 strictly, of the same completions."""
    total, right, in_form = 1319, 1035, 266
    texts = [f"It takes 6 + {n} steps.\n#### {n}" if n < in_form else f"So it is {n}." for n in range(right)]
    texts += ["I cannot say."] * (total - right)
    for strict, flexible in (("hash", "last_number"), ("gsm8k_strict", "gsm8k_flexible")):
        found = [extract(text, str(n), Forms(strict, flexible)) for n, text in enumerate(texts)]
        shares = [
            round(sum((answer or "").rstrip(".") == str(n) for n, answer in enumerate(answers)) / total, 4)
            for answers in ([each.strict for each in found], [each.flexible for each in found])
        ]
        assert shares == [0.2017, 0.7847]


@pytest.mark.parametrize(
    ("form", "example", "last"),
    [
        ("hash", "#### {}", "#### 9"),
        ("boxed", r"\boxed{{{}}}", r"\boxed{9}"),
        ("answer_tag", "<answer>{}</answer>", "<answer>9</answer>"),
        ("cue", "The answer is {}", "The answer is 9"),
        ("last_number", "It is {}", "It is 9"),
        ("gsm8k_flexible", "It is {}", "It is 9"),
    ],
)
def test_recited_examples_are_not_the_answer(form: str, example: str, last: str) -> None:
    """lm-evaluation-harness issue 3438."""
    recited = "\n\n".join(f"Question {n}?\n{example.format(n)}" for n in range(5))
    assert read(form, f"{recited}\n\nQuestion 9?\n{last}") == "9"


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_guessed_and_nothing_changes(form: str) -> None:
    """evals PR 1447: a random option for each answer that could not be read lifted .3667 to .4."""
    generator, number = random.Random(0), 10_000 if form == "option" else 1_000
    letters = sorted({" ", *string.ascii_letters} - set("yYnN"))  # no yes, no no
    texts = ["".join(generator.choices(letters, k=30)) for _ in range(number)]
    if form in ("auto", "whole"):  # whose answer is the text
        texts = [" " * (n % 9) for n in range(number)]
    first = [extract(text, "yes", Forms(form, form), tuple("ABCD")) for text in texts]
    assert {(each.strict, each.flexible) for each in first} == {(None, None)}
    assert first == [extract(text, "yes", Forms(form, form), tuple("ABCD")) for text in texts]


@pytest.mark.parametrize("form", FORMS)
def test_unfinished_reasoning_holds_no_answer(form: str) -> None:
    """vLLM PR 49881, inspect_evals PR 2097: an answer was taken out of reasoning that the limit had cut off."""
    reasoning = rf"yes #### 5 \boxed{{5}} <answer>5</answer> The answer is 5 + 5\n{SUDOKU}\n"
    found = extract(f"<think>{reasoning}", "yes", Forms(form, form))
    assert found.unfinished and found.strict is found.flexible is None
    assert extract(f"<think>{reasoning}</think>", "yes", Forms(form, form)).strict is None
    for opening in ("", "<think>"):  # the chat template may have opened the block
        assert extract(f"{opening}{reasoning}</think> \n", "yes", Forms(form, form)).strict is None


# ── Properties ────────────────────────────────────────────────────────────────────────────────────────────────────

PIECES = (
    "answer", " is ", ":", "The answer is ", "Answer: ", "**", "A", "b", "(C)", "I", "option ", " or ", "because", "#",
    "####", "#### ", r"\boxed{", r"\text{", "{", "}", "\\", "<answer>", "</answer>", "<think>", "</think>", "yes", "No",
    "1", "2,345", ".5", "-", "/", "e5", "$", " + ", "=", "(", ")", r"\frac{", "\n", "\n\n", " ", "\t", ".", ",", "|",
    "---", "#.S", "2 3 4 1\n", "\r\n", "\u2028", "\x0c", "é", "\u0301", "５", "字", "𝟓", "'", "’",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30), st.sampled_from(["yes", "5"]))
@settings(max_examples=100, deadline=None)
def test_an_answer_is_a_piece_of_the_completion(pieces: list[str], gold: str) -> None:
    text = "".join(pieces)
    for name in FORMS:
        found = extract(text, gold, Forms(name, name))
        for answer in (found.strict, found.flexible):
            if answer is None:
                continue
            assert answer == answer.strip() != ""
            if name == "yes_no" or (name == "auto" and gold == "yes"):
                assert answer in ("yes", "no") and answer in normalise(text)
            else:
                assert answer in text
            if name == "option":
                assert answer.upper() in LABELS


@given(st.lists(st.sampled_from(("The answer is ", "A", "b", "(C)", "I", " ", ".", ",", " or ")), max_size=8))
def test_finding_an_option_again_changes_nothing(pieces: list[str]) -> None:
    found = read("option", "".join(pieces))
    assert found is None or read("option", found) == found


LENGTH = 50_000
HOSTILE = (
    " ", "####", "#### ", "answer ", "answer is ", "answer*", "**", "(", r"\text{", r"\boxed{", "<answer>", "<think>",
    "1", "1,111", "1e", "1e1", "--1", "-$", "1+", "(1", "1 1\n", "|-", "A or ", "\u0316\u0301", "\u0301\uff9e",
)  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("form", FORMS)
def test_no_text_makes_a_form_slow(form: str) -> None:
    """Work with the square of this length would take a quarter of a minute or more for each of these texts."""
    for number, piece in enumerate(HOSTILE):
        for text in (piece * (LENGTH // len(piece)), f"The answer is {piece * (LENGTH // len(piece))}!"):
            extract(text, "yes" if number % 2 else "5", Forms(form, "whole"))


def test_a_form_that_there_is_not() -> None:
    check_forms(Forms("boxed"))
    with pytest.raises(ValueError, match=r"^strict: no form of an answer is called `boxd`; did you mean `boxed`\?$"):
        check_forms(Forms("boxd", "boxd"))
    with pytest.raises(ValueError, match=r"^flexible: .* `qqq`; there are auto, whole, "):
        extract("", "", Forms("auto", "qqq"))


@pytest.mark.parametrize("form", FORMS.values())
def test_each_form_says_in_a_line_what_it_is(form: Callable[..., str | None]) -> None:
    line = (form.__doc__ or "").strip().partition("\n")[0]
    assert line.endswith(".") and "\\\\" not in line


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        ("expression", "So <answer>(1+2)*3</answer> it is.", "(1+2)*3"),
        ("last_number", "\\boxed{42}, found in 3 steps", "42"),
        ("last_number", "<answer>7</answer> of 12", "7"),
        ("grid", "1 2\n3 4\n<answer>5 6\n7 8</answer>\n9 9\n9 9", "5 6\n7 8"),
    ],
)
def test_an_answer_in_a_tag_or_a_box_is_looked_at_alone(form: str, text: str, answer: str) -> None:
    assert FORMS[form](text, "", ()) == answer
