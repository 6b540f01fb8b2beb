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

_STEPS_TEXT = '''"""A step reward for Trivium: `credit: step_reward, reward: {file}:{function}` under `step_credit`."""


def {function}(prompts, completions, steps, *, answer, **columns):
    """How good a trace is after each step: 1 once the gold answer has been written, else 0; None without a gold answer.

    `steps[i]` are the parts of completion i, which joined are the completion. Each gets a value on the scale of the
    reward that says success, from what has been written up to its end: what a step changed in that value is its
    credit. A step that gets None is joined to the next one. `answer` is a column of the data; name others in the same
    way.
    """
    values = []
    for parts, gold in zip(steps, answer, strict=True):
        text, found = "", []
        for part in parts:
            text += part
            found.append(float(gold.casefold() in text.casefold()) if gold else None)
        values.append(found)
    return values
'''


def write(reference: str, steps: bool = False) -> Path:
    """Writes the template to `FILE.py:FUNCTION`; `steps`: that of a step reward.

    Raises `RewardError` where that is no such reference or exists.
    """
    place, _, function = reference.rpartition(":")
    if not place.endswith(".py") or not function.isidentifier():
        raise RewardError(f"`{reference}`: write path/to/file.py:function, such as my_rewards.py:contains")
    path = Path(place)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write((_STEPS_TEXT if steps else _TEXT).format(file=path, function=function))
    except FileExistsError:
        raise RewardError(f"{path}: exists already; choose another name") from None
    except OSError as error:
        raise RewardError(f"{path}: cannot be written ({error.strerror})") from None
    return path
