"""Writes docs/recipes.md from the models that check a recipe: `python -m tools.recipe_reference`.

A key's meaning stands beside its field in the code, so the page cannot say anything else. Text around the tables is
here. `tests/tools/test_recipe_reference.py` fails while the page is not up to date.
"""

from __future__ import annotations

import importlib
import inspect
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from engines.base import Decoding
from engines.looped.config import LoopSettings
from engines.settings import EngineSettings
from pipelines.launching.settings import LaunchSettings
from pipelines.recipe import Recipe
from pipelines.sections import DataSettings, ModelSettings
from pipelines.stages import stage_classes
from selfrefine.build import BuildSpec
from selfrefine.latent.spec import ReasonerSpec
from selfrefine.stepwise.reinforce import RewardUse
from selfrefine.stepwise.settings import StepCredit
from selfrefine.training import LoraSettings
from selfrefine.triad.hide import Split
from selfrefine.triad.measure import MeasureSettings
from selfrefine.triad.score import RANDOM, SCORES
from selfrefine.triad.templates import Prompts
from tasks.registry import Entry, entries

PAGE = Path("docs/recipes.md")
_ORDER = ("tune", "generate", "filter", "update", "reinforce", "reflect", "recur", "evaluate", "report")
_LONGEST_DEFAULT = 60

# Keys whose field says nothing beyond its name. A description in the code is preferred to an entry here.
_WITHOUT_DESCRIPTION = {
    "name": "the run's name, and its directory's: letters, digits, `-` and `_`",
    "seed": "of everything that is drawn; each stage derives its own",
    "model": "where the run starts; recurrent reasoners start from nothing",
    "engine": "what generates",
    "data": "name -> a slice of a task; stages refer to the names",
    "stages": "in the order they run",
    "build": "a small model made from scratch; exactly one of `build` and `path` is given",
    "trust_remote_code": "run Python code that comes with a checkpoint",
    "architecture": "a standard class of transformers that vLLM serves too",
    "hidden_size": "width of the language model",
    "layers": "of the language model",
    "heads": "attention heads of the language model",
    "kv_heads": "its key-value heads",
    "vision_hidden_size": "width of the vision encoder",
    "vision_layers": "of the vision encoder",
    "vision_heads": "its attention heads",
    "patch_size": "side of a vision patch in pixels",
    "tie_word_embeddings": "the output head shares the input embedding",
    "dtype": "of weights and computation; auto: the checkpoint's own",
    "gpu_memory_utilization": "share of a GPU's memory that vLLM may take",
    "tensor_parallel_size": "GPUs that one model is split over",
    "url": "of the server, with or without `/v1`",
    "concurrency": "requests under way at once",
    "task": "where the rows come from",
    "split": "which part",
    "epochs": "passes over the examples",
    "learning_rate": "peak of a cosine schedule; 3 % of the steps warm up",
    "freeze_vision": "leave the vision encoder as it is; the projector is trained",
    "lora": "train adapters instead of all weights",
    "measure": "what is measured of each pair",
    "select": "which pairs are kept",
    "decoding": "how tokens are chosen",
    "max_new_tokens": "longest completion, in tokens",
    "temperature": "0 is greedy",
    "top_p": "sample from the fewest tokens that hold this probability",
    "stop": "strings that end a completion, which is cut before them",
    "r": "rank",
    "alpha": "scale; updates are multiplied by alpha / r",
    "dropout": "on the adapters' input",
    "target_modules": "PEFT's name or pattern of the layers",
}

_INTRODUCTION = """\
# Every key of a recipe

This page is made from the code by `python -m tools.recipe_reference`; edit the descriptions there.

A recipe is one YAML file. `trivium run RECIPE --plan` checks it and says what would run; an unknown key is refused with
its line and the nearest key that exists. Any key can be set on the command line, with dots between the levels and the
name of a stage in place of its number: `trivium run RECIPE stages.tune.epochs=3 engine.kind=vllm`.
"""
_ROUNDS = """
The stages before the first `evaluate` or `report` make a round and are repeated `rounds` times; each round gets its own
part of the unlabelled images, and starts from the model that the round before made. Stages of round 2 are called
`tune.2`, `generate.2` and so on.

An arm runs a part of the round again with other settings: it copies the first stage that it overrides and all that
follow in the round. `arms: {random: {filter.select.score: random}}` adds `filter@random` and `update@random`. Where
there is an arm called `random`, `evaluate` compares the others with it.
"""
_LAUNCH = """
A stage that trains may have a block of its own, which takes the place of this one. [scale.md](scale.md) says how the
processes are started.
"""
_TUNED = """
A text-only model learns from questions and answers alone by a `tune` that hides nothing but answers. This is all that a
recipe for it needs; a line of the files reads `{"question": "2 + 3?", "answer": "5"}`:

```yaml
name: answers
model: {path: HuggingFaceTB/SmolLM2-135M-Instruct}   # or a directory
data:
  labelled: {task: table, source: train.jsonl}
  test: {task: table, source: test.jsonl}
stages:
  - kind: tune
    split: {pair: 0, question: 0, answer: 1}
    prompts: {system: null}
    lora: {r: 16}
    learning_rate: 5.0e-4
  - {kind: reflect}                                   # if its layers are to be looped, too
  - {kind: evaluate}
  - {kind: report}
```

`update` is another stage: it trains on what `filter` kept.
"""
_REASONER = """
`recipes/reasoner-6x6.yaml` is a whole recipe, of some minutes on a CPU.
"""
_AFTER = {"tune": _TUNED, "recur": _REASONER}


def reference() -> str:
    """The whole page."""
    kinds = [kind for kind in _ORDER if kind in stage_classes()]
    kinds += sorted(set(stage_classes()) - set(kinds))
    parts = [
        _INTRODUCTION,
        _section("The recipe", Recipe, _ROUNDS, level=2),
        _section("`model`", ModelSettings, level=2),
        _section("`model.build`", BuildSpec, level=3),
        "## `engine`\n\nOne key chooses it: `kind`.\n",
        *(_section(f"`kind: {_kind(each)}`", each) for each in get_args(get_args(EngineSettings)[0])),
        _section("`data.NAME`", DataSettings, _tasks(), level=2),
        _section("`launch`", LaunchSettings, _LAUNCH, level=2),
        "## `stages`\n\nA list. Each has a `kind`, and may have a `name` to be called by (the kind unless given).\n",
        *(_section(f"`kind: {kind}`", stage_classes()[kind], _AFTER.get(kind, "")) for kind in kinds),
        "## Blocks inside the stages\n",
        _section("`decoding`", Decoding),
        _section("`split`", Split),
        _section("`prompts`", Prompts),
        _section("`lora`", LoraSettings),
        _section("`loop`", LoopSettings),
        _section("`measure`", MeasureSettings),
        _section("`reasoner`", ReasonerSpec),
        _section("`rewards`, each", RewardUse),
        _section("`step_credit`", StepCredit),
        _section("`select`", _field_type(stage_classes()["filter"], "select"), _scores()),
    ]
    return "\n".join(parts)


def _section(title: str, model: type, after: str = "", level: int = 3) -> str:
    """A heading, what the model's docstring begins with, and a table of its keys."""
    about = (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ")
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {default} | {values} | {text} |" for name, default, values, text in _keys(model)]
    return "\n".join(["#" * level + f" {title}", "", about, "", *(rows if len(rows) > 2 else []), after])


def _keys(model: Any) -> Iterator[tuple[str, str, str, str]]:
    """(key, default, values, meaning) of each field of a pydantic model or a dataclass."""
    if is_dataclass(model):
        hints = get_type_hints(model)
        for each in fields(model):
            yield each.name, _shown(each.default), _values(hints[each.name]), _WITHOUT_DESCRIPTION[each.name]
        return
    for name, field in model.model_fields.items():
        if name in ("kind", "name") and model is not Recipe:
            continue
        if field.is_required():
            default = "required"
        elif field.default is PydanticUndefined:
            default = _shown(field.get_default(call_default_factory=True))
        else:
            default = _shown(field.default)
        values = " ".join(
            filter(None, (_values(field.annotation), ", ".join(filter(None, map(_limit, field.metadata)))))
        )
        yield name, default, values, _cell(field.description or _WITHOUT_DESCRIPTION[name])


def _shown(default: Any) -> str:
    """A default as it would be written in YAML; a whole block is pointed to instead."""
    if isinstance(default, BaseModel):
        return "its own defaults"
    if is_dataclass(default) and not isinstance(default, type):
        return (
            "`" + ", ".join(f"{each.name}: {json.dumps(getattr(default, each.name))}" for each in fields(default)) + "`"
        )
    if default is None:
        return "–"
    text = json.dumps(default, ensure_ascii=False, default=lambda each: each.model_dump(exclude_defaults=True))
    if len(text) <= _LONGEST_DEFAULT:
        return _cell(f"`{text}`")
    return f"{len(default)} wordings" if isinstance(default, Sequence) and not isinstance(default, str) else "see code"


def _values(annotation: Any) -> str:
    """The kind of value, in the words of a recipe."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_values(each) for each in arguments if each is not type(None)))
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    if origin is not None and issubclass(origin, Sequence):
        return "list"
    names = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}
    return names.get(annotation, "block")


def _limit(metadata: Any) -> str:
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if (value := getattr(metadata, attribute, None)) is not None:
            return f"{sign} {value:g}"
    return ""


def _field_type(model: type[BaseModel], name: str) -> type:
    found = model.model_fields[name].annotation
    assert isinstance(found, type)
    return found


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default)


def _tasks() -> str:
    lines = [f"- `{each.name}`: {each.summary}" for each in entries()]
    return "\n".join(["", "Tasks (`trivium tasks list`):", "", *lines, "", *map(_task_keys, entries())])


def _task_keys(task: Entry) -> str:
    """The keys that a task takes beside those above, and what its `load` says of them."""
    load = importlib.import_module(task.module).load
    keys = [
        f"`{name}` ({'required' if parameter.default is parameter.empty else 'optional'})"
        for name, parameter in inspect.signature(load).parameters.items()
        # What a task's own name says, and what stands for keys that a dataset has, are no keys.
        if name != "split" and parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD)
    ]
    if not keys:
        return ""
    return f"`{task.name}` takes {', '.join(keys)}. {' '.join((inspect.getdoc(load) or '').split())}\n"


def _scores() -> str:
    names = ", ".join(f"`{name}`" for name in (*SCORES, RANDOM))
    return f"\nScores: {names}. [scores.md](scores.md) explains them.\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
