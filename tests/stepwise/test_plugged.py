"""Credit by a function of a file: called where `telescope` is, and nothing else changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards.contract import RewardError
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.credit import telescope
from selfrefine.stepwise.plugged import Plugged
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

NAN = float("nan")
FILE = '''
import torch

def differences(outcome, values, size):
    """`telescope` by loops; writes into what it is given."""
    found = torch.full((values.shape[0], values.shape[1] + 1), float("nan"), dtype=values.dtype)
    for row in range(len(outcome)):
        start = row // size * size
        others = [outcome[i] for i in range(start, start + size) if i != row and not outcome[i].isnan()]
        if not others or outcome[row].isnan():
            continue
        line = [(-1, torch.stack(others).sum() / len(others))]
        line += [(k, value) for k, value in enumerate(values[row]) if not value.isnan()]
        line += [(values.shape[1], outcome[row])]
        for (begin, before), (end, after) in zip(line, line[1:]):
            found[row, begin + 1:end + 1] = after - before
    values.fill_(7)
    outcome.fill_(7)
    return found

def nothing(outcome, values, size):
    return None

def short(outcome, values, size):
    return values

def whole(outcome, values, size):
    return torch.zeros(values.shape[0], values.shape[1] + 1, dtype=torch.long)

def double(outcome, values, size):
    return torch.zeros(values.shape[0], values.shape[1] + 1, dtype=torch.float64)

def infinite(outcome, values, size):
    return torch.full((values.shape[0], values.shape[1] + 1), torch.inf)

def raises(outcome, values, size):
    return values[size * 100]

def two(outcome, values):
    return values

number = 3
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("credit") / "mine.py"
    path.write_text(FILE)
    return str(path)


def advantages(train: Callable[..., Any], chosen: dict[str, Any], step_reward: Any = None) -> list[Any]:
    found: list[Any] = []

    class Spied(StepCreditTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            found.append(output["advantages"])
            return output

    trainer = train(Spied, extra={"step_credit": StepCredit.model_validate(chosen), "step_reward": step_reward})
    return [*found, [row["grad_norm"] for row in trainer.state.log_history if "loss" in row]]


@pytest.mark.parametrize(
    "further",
    [
        {},
        {"calibrate": "none"},
        {"calibrate": "none", "group_filter": "none"},
        {"calibrate": "none", "reward": "signs"},
    ],
)
def test_the_same_rule_from_a_file_gives_the_same_bits(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, file: str, further: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    given = {"cuts": 3, "branches": 3, **further}
    ours = "step_reward" if "reward" in given else "segments"
    expected = advantages(train, {"credit": ours, **given}, signs)
    found = advantages(train, {"credit": f"{file}:differences", **given}, signs)
    assert len(found) == len(expected) == 4 and found[-1] == expected[-1] and any(found[-1])
    assert all(torch.equal(a, b) for a, b in zip(found[:-1], expected[:-1], strict=True))
    assert any(row.unique().numel() > 2 for each in found[:-1] for row in each), "credit differs within a row"


def signs(prompts: Any, completions: Any, steps: Any, **columns: Any) -> list[list[float | None]]:
    return [[None if len(part) % 2 else len(part) / 12 for part in parts] for parts in steps]


def test_it_is_telescope_of_rows_that_are_not_known_too(file: str) -> None:
    generator = torch.Generator().manual_seed(0)
    outcome = torch.bernoulli(torch.full((12,), 0.5), generator=generator)
    values = torch.rand(12, 4, generator=generator)
    outcome[3], outcome[8:11] = NAN, NAN
    values[torch.rand(12, 4, generator=generator) < 0.3] = NAN
    kept = outcome.clone(), values.clone()
    found = Plugged(f"{file}:differences")(outcome, values, 4)
    expected = telescope(outcome, values, 4)
    assert torch.allclose(found, torch.where(expected.isnan().any(1, keepdim=True), NAN, expected), equal_nan=True)
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip((outcome, values), kept, strict=True))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nothing", "credit `nothing` returned NoneType, no tensor"),
        (
            "short",
            "credit `short` returned torch.float32 of (4, 2) on cpu; torch.float32 of (4, 3) on cpu is wanted: a ",
        ),
        ("whole", "credit `whole` returned torch.int64 of (4, 3) on cpu; torch.float32 of (4, 3) on cpu is wanted"),
        ("double", "credit `double` returned torch.float64 of (4, 3)"),
        ("infinite", "credit `infinite` returned an infinite number; NaN leaves a part as it is"),
        ("raises", "credit `raises` raised IndexError in mine.py, line "),
        ("two", "credit `two` raised TypeError: two() takes 2 positional arguments but 3 were given"),
    ],
)
def test_what_it_must_not_return_is_one_line(file: str, name: str, complaint: str) -> None:
    with pytest.raises(RewardError, match=f"^{re.escape(complaint)}") as raised:
        Plugged(f"{file}:{name}")(torch.zeros(4), torch.zeros(4, 2), 2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [("{file}:difference", "defines no `difference`; did you mean `differences`"), ("{file}:number", "is no function"),
     ("nowhere.py:f", "^credit nowhere.py:f: nowhere.py cannot be read")],
)  # fmt: skip
def test_what_is_not_there_is_one_line(file: str, reference: str, complaint: str) -> None:
    with pytest.raises(RewardError, match=complaint):
        Plugged(reference.format(file=file))


def test_the_example_of_the_page_spreads_values_as_they_are(tmp_path: Path) -> None:
    page = Path("docs/rewards.md").read_text().partition("## Credit of your own")[2]
    path = tmp_path / "my_credit.py"
    path.write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    values = torch.tensor([[0.25, NAN], [0.5, 0.75]])
    found = Plugged(f"{path}:credit")(torch.tensor([1.0, 0.0]), values, 2)
    assert found.tolist() == [[-0.25, 0.5, 0.5], [0.0, 0.25, -0.5]]
