"""Runs a task of the harness on an engine. lm_eval is imported only when a task is asked for."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import Engine, first_line
from engines.spelling import did_you_mean
from eval.bridge.result import PREFIX, BridgeResult, put_together
from eval.bridge.rows import Outline, Row, grouped
from eval.bridge.verdicts import Sample
from tasks.problem import TaskError

if TYPE_CHECKING:
    from eval.bridge.model import Answer

# It hands the model's text to sympy's parse_expr, which executes it, and does not say so.
_EXECUTES = ("/tasks/score/math/",)
_UNSAFE = "executes what the model writes, which is never done here; choose another task"


def available() -> str | None:
    """A line on what to install before a task can run; None where it is there. Nothing is imported."""
    if importlib.util.find_spec("lm_eval") is None:
        return "lm-evaluation-harness is not installed; pip install 'trivium-reasoning[lm-eval]'"
    return None


def run(
    task: str,
    engine: Engine,
    *,
    label: str,
    limit: int | None = None,
    num_fewshot: int | None = None,
    seed: int = 0,
    template: str | None = None,
) -> BridgeResult:
    """Puts a task of the harness to an engine, as chat turns, and reads back what the harness made of the answers.

    Args:
        task: a task, group or tag of the harness, or the path of a task's YAML; `lm-eval:` before it is left away.
        limit: documents of each task; the result is then marked as partial.
        num_fewshot: worked examples before each question; by default the task's own number.
        seed: of the examples' choice and of sampling. Python's and NumPy's global generators are seeded with it, since
            some tasks draw from them.
        template: the checkpoint's chat template, of which the hash is kept.

    An answer that the engine could not give is `ungraded`; the harness's own numbers (`provenance`) count it as empty.

    Raises:
        TaskError: lm_eval is missing, there is no such task (names the nearest), its data cannot be had, or it needs
            what cannot be had here: executing text, likelihoods, images, a begun answer.
        EngineError: the engine cannot serve the requests.
    """
    if line := available():
        raise TaskError(line)
    if limit is not None and limit < 1:
        raise TaskError(f"{PREFIX}{task.removeprefix(PREFIX)}: limit is 1 or more, not {limit}")
    name = task.removeprefix(PREFIX)
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    tasks = _load(name, num_fewshot)
    for loaded in tasks.values():
        if num_fewshot is not None or loaded.get_config("num_fewshot") is None:
            loaded.set_config("num_fewshot", num_fewshot or 0)
        loaded.set_fewshot_seed(seed)

    import lm_eval  # type: ignore
    from lm_eval.utils import hash_string  # type: ignore

    from eval.bridge.model import EngineLM

    model = EngineLM(engine, seed=seed, template=template or "", keep_errors=True)
    results = _as_json(
        lm_eval.evaluate(
            model,
            {"tasks": tasks},
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    )
    found = []
    for each, loaded in tasks.items():
        outline = Outline.of(results, each)
        documents = grouped(_rows(results["samples"][each]), each)
        found.append((outline, documents, list(_samples(documents, outline, loaded, model.answers))))
    return put_together(
        found,
        name=next(iter(tasks)) if len(tasks) == 1 else name,
        label=label,
        harness=lm_eval.__version__,
        template_sha=hash_string(template) if template else None,
        more={"seed": seed, "limit": limit, "fewshot_as_multiturn": True},
    )


def _load(name: str, num_fewshot: int | None) -> dict[str, Any]:
    """The harness's tasks of that name. What their YAML gives away is looked at before their data, and
    their own code, are loaded."""
    from lm_eval.tasks import TaskManager  # type: ignore

    path = Path(name)
    from_file = path.suffix in (".yaml", ".yml")
    if from_file and not path.is_file():
        raise TaskError(f"{PREFIX}{name}: no such file")
    manager = TaskManager(include_defaults=not from_file)
    if not from_file and name not in manager.task_index:
        near = did_you_mean(name, manager.all_tasks, "; `lm-eval ls tasks` lists them all")
        raise TaskError(f"lm-evaluation-harness has no task `{name}`{near}")
    try:
        for source, config in [(path, None)] if from_file else _members(name, manager.task_index):
            _refuse(config or _read(source), source)
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    except TaskError:
        raise
    # A task runs code of its own while it loads, and asks for packages and the hub: anything may come of it.
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise TaskError(f"lm-eval task `{name}` cannot be loaded: {said}") from error
    for each, loaded in tasks.items():
        _refuse(_of_loaded(each, loaded), path)
        if num_fewshot and loaded.get_config("num_fewshot") == 0:
            raise TaskError(f"lm-eval task `{each}` is made for 0 examples; leave num_fewshot out, not {num_fewshot}")
    return tasks


def _members(name: str, index: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The YAML files of the tasks behind a name, with what stands in them. Tasks that a group writes out itself are
    left to be looked at once they are loaded."""
    entry = index[name]
    if entry.kind.name == "TAG":
        names: Sequence[Any] = sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        members = entry.cfg.get("task", [])
        given = members if isinstance(members, list) else [members]
        names = [each.get("group", each.get("task")) if isinstance(each, dict) else each for each in given]
    else:
        yield entry.yaml_path, entry.cfg
        return
    for member in names:
        if isinstance(member, str) and member in index and member != name:
            yield from _members(member, index)


def _read(path: Path) -> Mapping[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml  # type: ignore

    read: dict[str, Any] = load_yaml(path, resolve_func=False)
    return read


def _of_loaded(name: str, task: Any) -> dict[str, Any]:
    """What `_refuse` asks about, of a task that may be a class of its own and have no YAML."""
    return {
        "task": name,
        "output_type": task.OUTPUT_TYPE,
        "unsafe_code": getattr(task, "UNSAFE_CODE", False),
        "doc_to_image": getattr(task, "MULTIMODAL", None) or None,
        "gen_prefix": task.get_config("gen_prefix"),
    }


def _refuse(config: Mapping[str, Any], source: Path) -> None:
    """Raises `TaskError` for a task that cannot be put to an engine, or may not."""
    from eval.bridge.model import no_images, no_likelihood, no_prefix

    name = str(config.get("task"))
    if config.get("unsafe_code") or any(part in source.as_posix() for part in _EXECUTES):
        raise TaskError(f"lm-eval task `{name}` {_UNSAFE}")
    if config.get("doc_to_image") is not None or config.get("doc_to_audio") is not None:
        raise TaskError(no_images(name))
    if config.get("output_type") not in (None, "generate_until"):
        raise TaskError(no_likelihood(name))
    if config.get("gen_prefix"):
        raise TaskError(no_prefix(name))


def _as_json(value: Any) -> Any:
    """As it would stand in the harness's files."""
    from lm_eval.utils import handle_non_serializable

    return json.loads(json.dumps(value, default=handle_non_serializable))


def _rows(samples: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """The harness's records, in the form of the lines that it writes."""
    for record in samples:
        named = [{f"arg_{j}": value for j, value in enumerate(request)} for request in record["arguments"]]
        arguments = {f"gen_args_{i}": request for i, request in enumerate(named)}
        yield Row.model_validate({**record, "arguments": arguments, "target": str(record["target"])})


def _samples(
    documents: Sequence[Mapping[str, Row]],
    outline: Outline,
    task: Any,
    answers: Mapping[tuple[str, int], Sequence[Answer]],
) -> Iterator[Sample]:
    """All answers, document by document. Of several the harness grades one, so each is then graded anew, alone."""
    first = [next(iter(document.values())) for document in documents]
    repeats = len(first[0].resps[0])
    graded = [documents] if repeats == 1 else [_alone(documents, outline, task, n) for n in range(repeats)]
    for place, row in enumerate(first):
        for number, answer in enumerate(answers[outline.name, row.doc_id]):
            generation = answer.generation
            yield Sample(
                graded[number][place],
                number,
                generation.text,
                finish=generation.finish,
                error=generation.error if generation.finish == "error" else None,
                seed=answer.request.seed,
                prompt=tuple(dict(turn) for turn in answer.request.messages),
                prompt_tokens=generation.prompt_tokens,
                completion_tokens=len(generation.token_ids),
                seconds=answer.seconds,
            )


def _alone(documents: Sequence[Mapping[str, Row]], outline: Outline, task: Any, number: int) -> list[dict[str, Row]]:
    """The rows that the harness would have written had the answer `number` been the only one."""
    instances = {instance.doc_id: instance for instance in task.instances}
    texts = {row.doc_id: row.resps[0][number] for document in documents for row in document.values()}
    for doc, instance in instances.items():
        instance.resps = [texts[doc]]
    for ensemble in task._filters:
        if outline.per_answer(ensemble.name):
            ensemble.apply(list(instances.values()))
    alone = []
    for document in documents:
        rows = {}
        for name, row in document.items():
            if outline.per_answer(name):
                instance = instances[row.doc_id]
                metrics = _as_json(task.process_results(instance.doc, [instance.filtered_resps[name]]))
                filtered = _as_json([instance.filtered_resps[name]])
                rows[name] = Row.model_validate({**row.model_dump(), "filtered_resps": filtered, **metrics})
            else:
                rows[name] = row
        alone.append(rows)
    return alone
