"""The harness's `LM` over an engine. Imports lm_eval, so it is imported only when a task is about to run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from lm_eval.api.model import LM  # type: ignore
from lm_eval.api.registry import register_model  # type: ignore
from lm_eval.models.utils import normalize_gen_kwargs  # type: ignore
from pydantic import TypeAdapter, ValidationError

from engines.base import Decoding, Engine, EngineError, Generation, Message, Request
from engines.checkpoint import load_processor
from engines.open import open_engine
from engines.settings import EngineSettings
from eval.evaluate import trial_seed
from tasks.problem import TaskError

MAX_NEW_TOKENS = 256
"""Where a task names no limit: what the harness's own models take then."""


class Turns(str):
    """Chat turns, as the harness hands a prompt around: their JSON. It hashes prompts and writes them to its files."""

    @property
    def messages(self) -> list[Message]:
        """The turns again."""
        return list(json.loads(self))


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine was asked and wrote. `seconds`: all of the call's, shared out evenly."""

    request: Request
    generation: Generation
    seconds: float


class EngineLM(LM):  # type: ignore[misc]
    """Answers the harness's requests with an engine.

    An engine renders chat turns with the checkpoint's own template, so prompts must come as turns
    (`apply_chat_template`). What cannot be asked exactly is refused with a `TaskError`, by the name of the task:

    - Raw text: an engine would put a template around it.
    - Likelihoods of given continuations. `Engine.score` gives those of a whole assistant turn: as the template writes
      it (some strip it), with its end, and without saying whether greedy decoding would have chosen it. The harness
      wants the continuation's own tokens and that flag. Masked-diffusion models have no such likelihood at all.
    - A turn of the assistant that is begun and to be continued (`gen_prefix`); images.

    Completions come without white space around them, as engines give them.

    Args:
        seed: sampling depends on it, the document and the number of the sample alone.
        template: the checkpoint's chat template, of which the harness records the hash.
        keep_errors: whether an answer that could not be made is left to the caller to find in `answers` (the harness
            sees an empty one); else it raises `EngineError`, since the harness would grade it as wrong.
    """

    def __init__(self, engine: Engine, *, seed: int = 0, template: str = "", keep_errors: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._seed = seed
        self._template = template
        self._keep_errors = keep_errors
        self.answers: dict[tuple[str, int], list[Answer]] = {}
        """By task and document, in the order of the samples."""

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The completions of the harness's `Instance`s, in order; one that occurs k times asks for k samples."""
        samples: Counter[tuple[str, int]] = Counter()
        asked: list[Request] = []
        places: list[tuple[str, int]] = []
        for instance in requests:
            place = (instance.task_name, instance.doc_id)
            asked.append(self._request(instance, samples[place]))
            places.append(place)
            samples[place] += 1
        before = time.perf_counter()
        generations = list(self._engine.generate(asked))
        each = (time.perf_counter() - before) / max(1, len(asked))
        for (task, doc), request, generation in zip(places, asked, generations, strict=True):
            if generation.finish == "error" and not self._keep_errors:
                raise EngineError(f"lm-eval task `{task}`, document {doc}: {generation.error}")
            self.answers.setdefault((task, doc), []).append(Answer(request, generation, each))
        return [generation.text for generation in generations]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> NoReturn:
        """Raises `TaskError`: see the class."""
        raise TaskError(no_likelihood(requests[0].task_name))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> NoReturn:
        """Raises `TaskError`: see the class."""
        raise TaskError(no_likelihood(requests[0].task_name))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns themselves: the engine renders them."""
        if not add_generation_prompt:
            raise TaskError(f"a prompt begins the answer itself, with {chat_history[-1]['content']!r}; {_NO_PREFIX}")
        return Turns(json.dumps(chat_history, ensure_ascii=False))

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's text, for the record; empty where it is not known."""
        return self._template

    @property
    def tokenizer_name(self) -> str:
        """Part of the key under which the harness keeps prompts: turns are the same for every checkpoint."""
        return "trivium-turns"

    def _request(self, instance: Any, sample: int) -> Request:
        task, doc = instance.task_name, instance.doc_id
        prompt, settings, *images = instance.args
        if images:
            raise TaskError(no_images(task))
        if not isinstance(prompt, Turns):
            raise TaskError(
                f"lm-eval task `{task}` came as raw text, around which an engine would put the chat template; "
                "add --apply_chat_template"
            )
        problem = f"{task}/{doc}"
        return Request(
            f"{problem}#{sample}",
            prompt.messages,
            decoding=decoding_of(task, settings),
            seed=trial_seed(self._seed, problem, sample),
        )


@register_model("trivium")
class CheckpointLM(EngineLM):
    """`--model trivium --model_args checkpoint=FOLDER,engine=transformers` of the harness's command line.

    Other arguments are the engine's settings, as under `engine:` of a recipe. `--batch_size` is passed on to engines
    that have one. Raises `EngineError` for an unknown engine or setting, or a checkpoint that cannot be opened.
    """

    def __init__(
        self,
        checkpoint: str,
        engine: str = "transformers",
        seed: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        if engine in ("transformers", "diffusion") and batch_size not in (None, "auto"):
            settings["batch_size"] = batch_size
        try:
            chosen: EngineSettings = TypeAdapter(EngineSettings).validate_python({"kind": engine, **settings})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"] if part != engine)
            raise EngineError(f"--model_args {field or 'engine'}: {first['msg']}") from None
        trusted = bool(settings.get("trust_remote_code", False))
        processor = load_processor(checkpoint, trust_remote_code=trusted)
        template = getattr(processor, "chat_template", None)
        super().__init__(
            open_engine(chosen, checkpoint), seed=seed, template=template if isinstance(template, str) else ""
        )


def decoding_of(task: str, settings: Mapping[str, Any]) -> Decoding:
    """A task's `generation_kwargs` as a `Decoding`. Raises `TaskError` for a setting that engines do not have."""
    given = dict(normalize_gen_kwargs(dict(settings), default_max_gen_toks=MAX_NEW_TOKENS))
    until = given.pop("until")
    limit = given.pop("max_gen_toks")
    sampled = given.pop("do_sample")
    temperature, top_p = float(given.pop("temperature", 0.0)), float(given.pop("top_p", 1.0))
    if given.get("num_beams") == 1:
        del given["num_beams"]
    if given:
        raise TaskError(f"lm-eval task `{task}` decodes with {', '.join(sorted(given))}, which engines do not have")
    if not sampled:
        temperature, top_p = 0.0, 1.0
    try:
        return Decoding(limit, temperature, top_p, stop=tuple(text for text in until if text))
    except ValueError as error:
        raise TaskError(f"lm-eval task `{task}`: {error}") from None


def no_likelihood(task: str) -> str:
    """The line that refuses a task of likelihoods."""
    return (
        f"lm-eval task `{task}` compares likelihoods of given texts, and engines score whole chat turns: the numbers "
        "would not be lm-eval's; run it with lm-eval's model `hf` or `vllm` and import the folder it writes"
    )


_NO_PREFIX = "engines begin answers themselves"


def no_prefix(task: str) -> str:
    """The line that refuses a task which begins the answer."""
    return f"lm-eval task `{task}` begins the answer itself (gen_prefix), and {_NO_PREFIX}; choose a task without one"


def no_images(task: str) -> str:
    """The line that refuses a task with images or sound."""
    return f"lm-eval task `{task}` shows images or plays sound, which the bridge does not pass on; choose a text task"
