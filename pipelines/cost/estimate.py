"""The stages of a plan, one after another: what each does follows from its settings and from those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pipelines.chain import Link
from pipelines.checkpoints import CHECKPOINT_KINDS
from pipelines.cost import assumed, trainings
from pipelines.cost.data import Data, look
from pipelines.cost.devices import Device
from pipelines.cost.models import Writing
from pipelines.cost.reasoner import Reasoner
from pipelines.cost.sizes import BYTES, Size, SizeUnknown, size_at, size_of
from pipelines.cost.work import Phase, Precision, Work
from pipelines.launching.settings import launch_settings

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.stages.evaluate import EvaluateStage
    from pipelines.stages.filter import FilterStage
    from pipelines.stages.generate import GenerateStage
    from pipelines.stages.recur import RecurStage
    from pipelines.stages.reflect import ReflectStage
    from pipelines.stages.reinforce import ReinforceStage
    from pipelines.stages.tune import TuneStage
    from pipelines.stages.update import UpdateStage

_BOARD = 81
"""Cells of a grid that cannot be looked at."""
_LABELS = 4
"""Tokens of `Instruction:` and `Answer:`."""
_REPORT = 1e6


@dataclass(frozen=True, slots=True)
class Done:
    """What a later stage has to know: rows that come out, pairs accepted so far, the reasoner that was trained."""

    rows: float = 0.0
    accepted: float = 0.0
    reasoner: Reasoner | None = None


class Estimate:
    """Works out the stages of one leg of a plan on one device, in order; `work` is asked for each link once."""

    def __init__(self, recipe: Recipe, links: Sequence[Link], device: Device) -> None:
        self._recipe = recipe
        self._links = {link.name: link for link in links}
        self._device = device
        self._done: dict[str, Done] = {}
        self.notes: dict[str, None] = {}
        self._size = cache(lambda: size_of(recipe.model))
        self._look = cache(lambda name: look(f"data.{name}", recipe.data[name].model_dump()))

    def work(self, link: Link) -> Work:
        """What the stage does; `Work.unknown` says why nothing can be told of it."""
        settings: Any = link.settings
        try:
            match link.kind:
                case "tune":
                    return self._tune(link, settings)
                case "generate":
                    return self._generate(link, settings)
                case "filter":
                    return self._filter(link, settings)
                case "update":
                    return self._update(link, settings)
                case "reinforce":
                    return self._reinforce(link, settings)
                case "reflect":
                    return self._reflect(settings)
                case "recur":
                    return self._recur(link, settings)
                case "evaluate":
                    return self._evaluate(link, settings)
                case "report":
                    return Work(kept=_REPORT, most=_REPORT)
        except SizeUnknown as unknown:
            return Work(unknown=str(unknown))
        return Work(unknown=f"there are no formulas for stages of kind {link.kind}")

    def _data(self, name: str) -> Data:
        return self._noted(self._look(name))

    def _noted(self, data: Data) -> Data:
        self.notes.update(dict.fromkeys(data.notes))
        return data

    def _pictured(self, data: Data, size: Size) -> bool:
        """Whether a row has an image: what cannot be looked at has one where the model can see."""
        return data.pictures > 0 or (not data.looked and size.vision is not None)

    def _gpus(self, settings: Any) -> int:
        """That a training takes: as many processes as are launched, else one for each GPU asked for."""
        world = launch_settings(self._recipe, settings).world
        if not self._device.gpu:
            return 1
        if world == 1 and self._device.count > 1:
            count = self._device.count
            self.notes[f"trainings on all {count} GPUs, which takes launch.processes={count}"] = None
        return min(self._device.count, world) if world > 1 else self._device.count

    def _built(self, work: Work, link: Link) -> Work:
        """With the file of the model that the first stage builds."""
        first = next(iter(self._links.values()))
        if self._recipe.model.build is None or link.name != first.name:
            return work
        extra = 4.0 * self._size().parameters
        return replace(work, kept=work.kept + extra, most=work.most + extra)

    def _accepted(self, link: Link) -> float:
        """Pairs that earlier rounds accepted."""
        before = link.upstream.get("update")
        return self._done[before].accepted if before in self._done else 0.0

    def _tune(self, link: Link, settings: TuneStage) -> Work:
        data, size = self._data(settings.data), self._size()
        rows = data.rows + self._accepted(link)
        images = self._pictured(data, size)
        asking = settings.split.pair + settings.split.question if images else 0.0
        system = _tokens_of(settings.prompts.system)
        text = assumed.TEMPLATE + system + data.question + data.answer + asking * (assumed.TEMPLATE + _LABELS)
        self._done[link.name] = Done(rows)
        return self._built(self._tuned(settings, rows, text, images), link)

    def _tuned(self, settings: TuneStage | UpdateStage, rows: float, text: float, images: bool) -> Work:
        how = trainings.training_of(self._size(), settings, self._recipe.model, self._device)
        if not how.size.causal and settings.canvas:
            text += settings.canvas
        return trainings.tuned(how, settings, rows, text, images, self._gpus(settings), self._device)

    def _generate(self, link: Link, settings: GenerateStage) -> Work:
        data, size = self._data(settings.data), self._size()
        pictures = (data.pictures or data.rows) / self._recipe.rounds
        rows = pictures * settings.per_image
        tune: Any = self._links[link.upstream["tune"]].settings
        pair = self._pair(tune)
        mean = min(float(settings.decoding.max_new_tokens), sum(pair) + _LABELS)
        prompt = self._prompt(size, tune, assumed.TEMPLATE, True)
        writer = self._writer(size)
        phases = writer.answers(
            "proposals", rows, prompt, mean, settings.decoding.max_new_tokens, rows, 1 / settings.per_image
        )
        self._done[link.name] = Done(rows)
        kept = rows * (assumed.PAIR_BYTES + 2 * assumed.CHARACTERS * mean)
        return self._written(writer, phases, rows, prompt, settings.decoding.max_new_tokens, kept)

    def _filter(self, link: Link, settings: FilterStage) -> Work:
        rows = self._done[link.upstream["generate"]].rows
        kept = rows * settings.select.fraction
        if settings.reads_original:
            kept = self._done[link.upstream["original"]].accepted
        self._done[link.name] = Done(kept, kept)
        size, measure = self._size(), settings.measure
        tune: Any = self._links[link.upstream["tune"]].settings
        question, answer = self._pair(tune)
        disk = rows * (assumed.PAIR_BYTES + 4 * assumed.CHARACTERS * (question + answer))
        if self._measured_before(link, settings):
            return Work(kept=disk / 2, most=disk / 2, notes=["measured by the stage it copies"])
        writer, most = self._writer(size), float(settings.max_new_tokens)
        ask, invert = (self._prompt(size, tune, tokens, True) for tokens in (question, answer + assumed.TEMPLATE))
        phases: list[Phase] = []
        if measure.rebuild:
            phases += writer.answers("rebuilt answers", rows, ask, min(most, answer), most, rows)
            phases += writer.answers("rebuilt questions", rows, invert, min(most, question + _LABELS), most, rows)
        if measure.samples:
            count = rows * measure.samples
            phases += writer.answers("samples", count, ask, min(most, answer), most, rows, 1 / measure.samples)
        scored = 2 * (measure.other_images + 1) if measure.other_images else 0
        scored += measure.edge_images if measure.edge_images > 1 else 0
        if scored:
            whole = self._prompt(size, tune, question + answer + assumed.TEMPLATE, True)
            count = rows * scored
            phases.append(writer.read("likelihoods", count, whole, count, (question + answer) / 2))
        self.notes["filter: every proposal is usable, and so measured"] = None
        return self._written(writer, phases, rows, max(ask, invert), most, disk)

    def _measured_before(self, link: Link, settings: FilterStage) -> bool:
        """Whether an arm's filter takes the measurements of the one it copies."""
        if link.original is None:
            return False
        other = self._links[link.original]
        theirs: Any = other.settings
        same = ("measure", "max_new_tokens", "similarity")
        above = {kind: name for kind, name in link.upstream.items() if kind in ("tune", "generate")}
        return all(getattr(settings, name) == getattr(theirs, name) for name in same) and above.items() <= (
            other.upstream.items()
        )

    def _update(self, link: Link, settings: UpdateStage) -> Work:
        data, size = self._data(settings.data), self._size()
        own = self._done[link.upstream["filter"]].accepted
        if settings.truth:
            generate: Any = self._links[link.upstream["generate"]].settings
            own = self._data(generate.data).rows
        accepted = self._accepted(link) + own
        rows = data.rows + accepted
        self._done[link.name] = Done(rows, accepted)
        text = assumed.TEMPLATE + data.question + data.answer
        work = self._tuned(settings, rows, text, self._pictured(data, size))
        pairs = accepted * assumed.PAIR_BYTES / 2
        return replace(work, kept=work.kept + pairs, most=work.most + pairs)

    def _reinforce(self, link: Link, settings: ReinforceStage) -> Work:
        data, size = self._data(settings.data), self._size()
        how = trainings.training_of(size, settings, self._recipe.model, self._device)
        prompt = assumed.TEMPLATE + data.question + _tokens_of(settings.system) + _tokens_of(settings.suffix)
        mean = self._mean(link.name, settings.max_new_tokens, size)
        images = self._pictured(data, size)
        work = trainings.reinforced(how, settings, prompt, mean, images, self._gpus(settings), self._device)
        if settings.step_credit.branching:
            self.notes[f"{link.name}: {assumed.UNDECIDED:.0%} of the groups are undecided, and have branches"] = None
        return self._built(work, link)

    def _reflect(self, settings: ReflectStage) -> Work:
        data, size = self._data(settings.data), self._size()
        text = data.question + data.answer + assumed.TEMPLATE + _tokens_of(settings.system)
        text += _tokens_of(settings.suffix)
        return trainings.reflected(
            size, settings, self._recipe.model, data.rows, text, self._pictured(data, size), self._gpus(settings),
            self._device,
        )  # fmt: skip

    def _recur(self, link: Link, settings: RecurStage) -> Work:
        data = self._data(settings.data)
        reasoner = Reasoner(settings.reasoner, data.cells or _BOARD, settings.alphabet)
        self._done[link.name] = Done(data.rows, 0.0, reasoner)
        gpus, precision = self._gpus(settings), trainings.precision_of(settings.precision, self._device)
        phases = [reasoner.trained(settings, precision, gpus)]
        chosen = settings.keep == "best"
        weights = 1 + bool(settings.ema) + chosen  # in the checkpoint
        if settings.validation is not None:
            boards, segments = self._data(settings.validation).rows, settings.reasoner.segments
            looks = float(weights * settings.beyond)
            if settings.judge_every:
                each = 2 if chosen and settings.ema else 1  # the step's weights, and those that may be kept
                looks += each * settings.steps / settings.rollout_steps(segments) / settings.judge_every
            judged = reasoner.solved("validation", boards, settings.batch_size, segments, precision).times(looks)
            phases.append(replace(judged, prompt=0.0, generated=0.0))
        kept = 4.0 * weights * reasoner.parameters
        return Work(phases, reasoner.memory(settings, gpus, self._device.gpu), kept, kept + 60.0 * reasoner.parameters)

    def _evaluate(self, link: Link, settings: EvaluateStage) -> Work:
        if settings.bridged:
            return Work(unknown="a task of lm-evaluation-harness has its own number of problems and tokens")
        asked, system, around, decoding = self._suite(settings)
        problems = min(asked.rows, settings.limit or math.inf)
        if settings.stress is not None:
            problems *= 1 + len(settings.stress.scopes) * len(settings.stress.severities)
        count = problems * settings.samples
        prompt = assumed.TEMPLATE + asked.question + system + around
        most = decoding.max_new_tokens
        phases: list[Phase] = []
        memory, disk, ran = 0.0, 0.0, 0
        for name, made in self._checkpoints(link, settings):
            ran += 1
            if isinstance(made, Reasoner):
                rows = getattr(self._recipe.engine, "batch_size", 64)
                segments = getattr(self._recipe.engine, "segments", None)
                phases.append(made.solved(name, count, rows, segments, "float32"))
                memory = max(memory, made.solving(rows, self._device.gpu))
                mean = float(made.cells)
            else:
                images = self._pictured(asked, made)
                own = prompt + (made.vision.tokens if images and made.vision else 0)
                mean = self._mean(name if name in self._links else None, most, made)
                writer = self._writer(made, trained=name in self._links)
                pictures = count if images else 0
                phases += writer.answers(name, count, own, mean, most, pictures, 1 / settings.samples)
                memory = max(memory, self._memory(writer, count, own, most))
            disk += 2 * count * (assumed.TRIAL_BYTES + assumed.CHARACTERS * (prompt + mean))
        if not ran:
            return Work(unknown="no checkpoint to ask")
        return Work(phases, memory, disk, disk)

    def _suite(self, settings: EvaluateStage) -> tuple[Data, float, float, Any]:
        """Data, tokens of the system prompt and of what stands around a question, decoding."""
        if settings.suite is None:
            return (
                self._data(settings.data), _tokens_of(settings.system), _tokens_of(settings.suffix), settings.decoding
            )  # fmt: skip
        name, file = settings.suite_file()
        data = look(f"suite {name}", file.located(file.data))
        if file.problems is not None:
            data = replace(data, rows=file.problems)
        self._noted(data)
        around = _tokens_of(file.prompt.before) + _tokens_of(file.prompt.after)
        return data, _tokens_of(file.prompt.system), around, file.decoding

    def _checkpoints(self, link: Link, settings: EvaluateStage) -> list[tuple[str, Size | Reasoner]]:
        found: list[tuple[str, Size | Reasoner]] = []
        if self._recipe.model.path is not None:
            found.append(("pretrained", self._size()))
        for name in link.upstream.values():
            above = self._links.get(name)
            if above is not None and above.kind in CHECKPOINT_KINDS:
                done = self._done.get(name)
                found.append((name, done.reasoner if done and done.reasoner else self._size()))
        return found + [(label, size_at(path)) for label, path in settings.checkpoints.items()]

    def _pair(self, tune: TuneStage) -> tuple[float, float]:
        """Tokens of the questions and answers that a model learnt to write."""
        data = self._data(tune.data)
        return data.question, data.answer

    def _mean(self, name: str | None, most: int, size: Size) -> float:
        """Tokens of an answer of the stage `name`: as those that the last tuning before it was on, else a share."""
        if not size.causal:
            return float(most)
        before: list[Any] = []
        for each, link in self._links.items():
            if link.kind in ("tune", "update") and "@" not in each:
                before.append(link.settings)
            if each == name:
                break
        if name is None or not before:
            self.notes[f"an answer has {assumed.ANSWER_SHARE:.0%} of max_new_tokens"] = None
            return most * assumed.ANSWER_SHARE
        self.notes["answers are as long as those that were trained on"] = None
        return min(float(most), self._data(before[-1].data).answer + 1)

    def _prompt(self, size: Size, tune: TuneStage, text: float, images: bool) -> float:
        seen = size.vision.tokens if images and size.vision else 0
        return assumed.TEMPLATE + _tokens_of(tune.prompts.system) + text + seen

    def _writer(self, size: Size, trained: bool = True) -> Writing:
        engine: Any = self._recipe.engine
        dtype = getattr(engine, "dtype", "auto")
        if dtype == "auto":
            dtype = self._recipe.model.dtype
        if dtype == "auto":  # as the files have it: those of a training are float32
            dtype = "float32" if trained or size.dtype not in BYTES else size.dtype
        precision = cast(Precision, dtype)
        tensor = getattr(engine, "tensor_parallel_size", 1)
        gpus = tensor * getattr(engine, "replicas", 1)
        rows = {"vllm": "max_num_seqs", "endpoint": "concurrency"}.get(engine.kind, "batch_size")
        kind = engine.kind if engine.kind in assumed.LAYER_SECONDS else "transformers"
        return Writing(
            size,
            "transformers" if kind == "latent" else kind,
            getattr(engine, rows),
            precision,
            gpus,
            tensor,
            getattr(engine, "block_length", 32),
            getattr(engine, "steps_per_block", 16),
        )

    def _memory(self, writer: Writing, count: float, prompt: float, most: float) -> float:
        share = getattr(self._recipe.engine, "gpu_memory_utilization", None)
        reserved = share * self._device.memory if share is not None and self._device.gpu else None
        return writer.memory(count, prompt, most, self._device.gpu, reserved)

    def _written(
        self, writer: Writing, phases: Sequence[Phase], rows: float, prompt: float, most: float, disk: float
    ) -> Work:
        return Work(phases, self._memory(writer, rows, prompt, most), disk, disk)


def _tokens_of(text: str | None) -> float:
    return len(text) / assumed.CHARACTERS if text else 0.0


def estimates(recipe: Recipe, links: Sequence[Link], device: Device) -> tuple[Mapping[str, Work], Sequence[str]]:
    """Name of a link -> its work, and what was assumed."""
    estimate = Estimate(recipe, links, device)
    found = {link.name: estimate.work(link) for link in links}
    return found, list(estimate.notes)
