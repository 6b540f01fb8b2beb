r"""Finding the answer in a completion. What is not found is `None`, never guessed.

Two extractions run on the same completion and are shown side by side; the gap between them is the share of answers
that are right but not in the form the prompt asked for.

- Reasoning up to the last `</think>` is left out. The chat template may have opened the block, so the opening tag is
  optional; a block that is opened and never closed leaves nothing to extract (`unfinished`).
- Each extraction looks for a form of `FORMS`. Where an answer is stated more than once the last one counts, since those
  before it may belong to examples that were recited.
- The form `auto` is for short answers. **Strict**: the completion is the answer. Short answer: the whole text. Yes/no:
  the text begins with the word. **Flexible**: the answer after the last cue (`answer is`, `answer:`) of the text;
  strict where there is no cue.
- Yes and no are whole words: there is no `no` in `notice`. "There is no circle" does not begin with either word and
  carries no cue, so it is unparsed: to read it as "no" would be a guess.
- Of a completion that the token limit cut off, an answer counts that is complete: the form finds it whatever words,
  numbers, rows or closing marks come next, as in `\boxed{7}` or "Yes, there". The whole text, the last number
  or the last grid never is, but in a tag or a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.spelling import did_you_mean
from eval.forms import FORMS as FORMS
from eval.forms import Form, auto, auto_flexible

VERSION = 3
"""Changes whenever the same completion may give another answer."""

_CLOSE = "</think>"
_OPEN = "<think>"
_NEXT = ("x", "1", " 1", "}" * 9, "</answer>", "\n1 2\n3 4\n1+1")
"""What may come next, if there were more tokens. A further answer in the same form may too, and is not foreseen."""


@dataclass(frozen=True, slots=True)
class Forms:
    """The form of the answer that strict and flexible extraction look for: names of `FORMS`."""

    strict: str = "auto"
    flexible: str = "auto"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answers found; `unfinished` when the reasoning block was never closed, or the token limit came before the
    strict answer was complete."""

    strict: str | None
    flexible: str | None
    unfinished: bool = False


def check_forms(forms: Forms) -> None:
    """Raises `ValueError`, in a line with the nearest name, for a form that there is not."""
    _form(forms.strict, "strict")
    _form(forms.flexible, "flexible")


def extract(
    completion: str, gold: str, forms: Forms = Forms(), options: Sequence[str] = (), cut: bool = False
) -> Extraction:
    """The answers that a completion gives to a question whose gold answer is `gold`.

    Of the gold answer only its form is used: whether the question wants yes or no, or a short answer. `options`: the
    labels of the problem's options; A to J where it names none. `cut`: the token limit ended the completion, so that
    incomplete answers are none. Raises `ValueError` as `check_forms` does.
    """
    strict, flexible = _form(forms.strict, "strict"), _form(forms.flexible, "flexible")
    if flexible is auto:
        flexible = auto_flexible
    _, closed, rest = completion.rpartition(_CLOSE)
    if _OPEN in rest:
        return Extraction(None, None, unfinished=True)
    final = rest if closed else completion
    found, loose = (_found(form, final, gold, options, cut) for form in (strict, flexible))
    return Extraction(found, loose, unfinished=cut and found is None)


def _found(form: Form, text: str, gold: str, options: Sequence[str], cut: bool) -> str | None:
    answer = form(text, gold, options)
    if cut and answer is not None and any(form(text + more, gold, options) != answer for more in _NEXT):
        return None
    return answer


def ends_with(completion: str, answer: str) -> bool:
    """Whether a completion ends with an answer that was found in it, which more tokens would have made longer: for
    answers that others have extracted, whose forms cannot be asked."""
    return completion.rstrip().endswith(answer.strip())


def _form(name: str, which: str) -> Form:
    if name not in FORMS:
        hint = did_you_mean(name, FORMS, f"; there are {', '.join(FORMS)}")
        raise ValueError(f"{which}: no form of an answer is called `{name}`{hint}")
    return FORMS[name]
