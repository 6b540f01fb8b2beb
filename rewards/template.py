"""A reward to begin with."""

from __future__ import annotations

from pathlib import Path

from rewards.contract import RewardError

_TEXT = '''"""A reward for Trivium. Name it in a recipe as `{file}:{function}`."""


def {function}(prompts, completions, *, answer, **columns):
    """1 where the completion contains the gold answer, else 0; None where there is no gold answer.

    There is one score for each completion. `answer` is a column of the data; name others in the same way.
    """
    scores = []
    for completion, gold in zip(completions, answer, strict=True):
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        scores.append(float(gold.casefold() in text.casefold()) if gold else None)
    return scores
'''


def write(reference: str) -> Path:
    """Writes the template to `FILE.py:FUNCTION`. Raises `RewardError` where that is no such reference or exists."""
    place, _, function = reference.rpartition(":")
    if not place.endswith(".py") or not function.isidentifier():
        raise RewardError(f"`{reference}`: write path/to/file.py:function, such as my_rewards.py:contains")
    path = Path(place)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEXT.format(file=path, function=function))
    except FileExistsError:
        raise RewardError(f"{path}: exists already; choose another name") from None
    except OSError as error:
        raise RewardError(f"{path}: cannot be written ({error.strerror})") from None
    return path
