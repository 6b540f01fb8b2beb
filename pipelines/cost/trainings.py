"""The stages that train a language model: tune, update, reflect, reinforce."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cost import assumed
from pipelines.cost.models import Training, Writing, files_beside
from pipelines.cost.sizes import BYTES, Size
from pipelines.cost.work import Phase, Precision, Work

if TYPE_CHECKING:
    from pipelines.cost.devices import Device
    from pipelines.sections import ModelSettings
    from selfrefine.latent.adapter.settings import ReflectSettings
    from selfrefine.sft import EpochSettings
    from selfrefine.stepwise.reinforce import ReinforceSettings
    from selfrefine.training import OptimiserSettings


def training_of(size: Size, settings: OptimiserSettings, model: ModelSettings, device: Device) -> Training:
    """How a stage trains a model on a device."""
    return Training(
        size,
        settings.lora.r if settings.lora else None,
        settings.freeze_vision,
        bool(settings.trl.get("gradient_checkpointing", False)),
        "float32" if model.dtype == "auto" else model.dtype,
        precision_of(settings.precision, device),
    )


def precision_of(asked: str, device: Device) -> Precision:
    """Of a training's forward pass."""
    return "bfloat16" if asked == "bfloat16" or (asked == "auto" and device.gpu) else "float32"


def steps_of(settings: EpochSettings, rows: float) -> int:
    """Optimiser steps, as `pipelines.training.total_steps` has them."""
    return settings.steps or max(1, round(-(-rows // settings.batch_size) * settings.epochs))


def tuned(
    how: Training, settings: EpochSettings, rows: float, text: float, images: bool, gpus: int, device: Device
) -> Work:
    """Supervised tuning on `rows` of `text` tokens, each with an image or none."""
    steps = steps_of(settings, rows)
    length = text + _seen(how.size, images)
    count = float(steps * settings.batch_size)
    phase = _update(how, "training", count, length, length, count if images else 0, steps, settings.accumulate, gpus)
    each = settings.batch_size / settings.accumulate / gpus
    return _trained_work(how, [phase], each * length, each * length, each if images else 0, steps, settings, device)


def reflected(
    size: Size, settings: ReflectSettings, model: ModelSettings, rows: float, text: float, images: bool, gpus: int,
    device: Device,
) -> Work:  # fmt: skip
    """A loop over some layers: the whole model forward, the loop and what follows it forward and back to the loop."""
    from engines.looped.config import default_layers

    loop = settings.loop
    first, end = loop.layers or default_layers(size.layers)
    depths = range(1, loop.iterations + 1) if settings.curriculum else [loop.iterations]
    passes = sum(depths) / len(depths)
    aligned = sum(len(loop.aligned(depth)) for depth in depths) / len(depths)
    steps = steps_of(settings, rows)
    length = text + _seen(size, images)
    tokens = float(steps * settings.batch_size) * length
    part = (end - first) / size.layers * passes + (size.layers - end) / size.layers * aligned
    products = size.forward(tokens, 0, aligned * tokens, part)
    attention = size.forward(tokens, length, aligned * tokens, part) - products
    eye = size.vision.forward() * steps * settings.batch_size if size.vision and images else 0.0
    rank = settings.lora.r if settings.lora else 0
    added = rank * size.narrow * (end - first) // size.layers + 2 * size.hidden
    count = steps * settings.accumulate
    layers = size.layers + (1 + assumed.BACKWARD_LAYERS) * size.layers * part
    phase = Phase(
        "training",
        trained=tokens,
        flops=size.forward(tokens, length, 0) + 2 * products + 3 * attention + 6 * tokens * added * passes + eye,
        moved=count * gpus * 3 * size.parameters * BYTES["float32" if model.dtype == "auto" else model.dtype],
        layers=count * layers,
        images=steps * settings.batch_size if images else 0,
        pixels=_pixels(size, steps * settings.batch_size if images else 0),
        precision=precision_of(settings.precision, device),
        gpus=gpus,
    )
    how = Training(size, rank, True, False, "float32" if model.dtype == "auto" else model.dtype, phase.precision)
    each = settings.batch_size / settings.accumulate / gpus * length
    # Nothing is held of the layers before the loop.
    memory = how.memory(each * max(part, 1 / size.layers), each * aligned, device.gpu)
    kept = 4 * added + files_beside(size)
    return Work([phase], memory, kept, kept + min(3, steps // settings.save_every) * (kept + 8 * added))


def reinforced(
    how: Training, settings: ReinforceSettings, prompt: float, mean: float, images: bool, gpus: int, device: Device
) -> Work:
    """Rollouts, branches, log-probabilities and updates."""
    size, trl = how.size, settings.trl
    masked = not size.causal
    most = float(settings.max_new_tokens)
    length = prompt + _seen(size, images)
    answer = most if masked else mean
    rows = settings.prompts * settings.group
    again = int(trl.get("num_iterations", 1))
    branches = _branches(settings)
    spent = rows * answer + branches * answer / 2  # tokens of a round
    rounds = -(-settings.steps // again)
    if settings.generated_tokens:
        rounds = min(rounds, max(1, round(settings.generated_tokens / spent)))
    steps = min(settings.steps, rounds * again)
    writer = Writing(
        size,
        "vllm" if settings.sampler == "vllm" else "transformers",
        -(-rows // gpus),
        how.precision if settings.sampler == "vllm" else _sampling(how, device),
        gpus,
        1,
        settings.diffusion.block_length,
        settings.diffusion.steps_per_block,
    )
    phases = _repeated(writer.answers("rollouts", rows, length, mean, most, rows if images else 0), rounds)
    if branches and masked:  # the canvas is whole, and half of its steps are left
        phases += _repeated(writer.answers("branches", branches, length, mean, most), rounds / 2)
    elif branches:
        half = answer / 2
        read = 1.0 if images or settings.sampler == "vllm" else 1 / settings.step_credit.branches
        made = writer.answers("branches", branches, length + half, half, most / 2, branches if images else 0, read)
        phases += _repeated(made, rounds)
    passes = _passes(settings, most) if masked else 1
    texts = (again > 1 or settings.sampler == "vllm") + (float(trl.get("beta", 0.0)) != 0)
    whole, judged = length + answer, answer
    if texts:
        # A masked-diffusion model hides other parts of the prompt in each iteration.
        reads = rows * texts * passes * (again if masked and settings.diffusion.prompt_masking else 1)
        reader = Writing(size, "transformers", -(-rows // settings.accumulate // gpus), how.precision, gpus)
        phases += _repeated([reader.read("log-probabilities", reads, whole, judged=judged)], rounds)
    phases.append(
        _update(
            how, "updates", float(steps * rows * passes), whole, judged, steps * rows if images else 0, steps,
            settings.accumulate * passes, gpus,
        )
    )  # fmt: skip
    each = rows / settings.accumulate / gpus
    pictures = each if images else 0
    work = _trained_work(how, phases, each * whole * passes, each * judged, pictures, steps, settings, device)
    if float(trl.get("beta", 0.0)) and how.rank is None and work.memory is not None:
        copy = size.parameters * BYTES[how.dtype]
        return Work(work.phases, work.memory + copy, work.kept, work.most, work.notes)
    return work


def _sampling(how: Training, device: Device) -> Precision:
    """Rollouts of the model in training run under its own autocast."""
    return how.precision if device.gpu else "float32"


def _branches(settings: ReinforceSettings) -> float:
    """Completions that begin inside a trace, in one round."""
    credit = settings.step_credit
    if not credit.branching:
        return 0.0
    is_open = assumed.UNDECIDED
    if credit.credit == "progress" and credit.gate != "none":
        is_open *= assumed.UNDECIDED
    cuts = 1 if credit.credit == "progress" else credit.cuts
    return settings.prompts * settings.group * is_open * cuts * credit.branches


def _passes(settings: ReinforceSettings, most: float) -> int:
    """Forward passes that a masked-diffusion model's log-probabilities take."""
    blocks = most / settings.diffusion.block_length
    return {
        "one_step": 1,
        "blocks": round(blocks),
        "trajectory": round(blocks * settings.diffusion.steps_per_block),
        "ar_order": round(most),
    }[settings.diffusion.likelihood]


def _repeated(phases: list[Phase], times: float) -> list[Phase]:
    return [phase.times(times) for phase in phases]


def _update(
    how: Training, name: str, count: float, length: float, judged: float, images: float, steps: int, accumulate: int,
    gpus: int,
) -> Phase:  # fmt: skip
    """`count` rows of `length` tokens go forward and back in `steps` steps of `accumulate` passes on each GPU."""
    size = how.size
    through = 1 + assumed.BACKWARD_LAYERS + how.checkpointing
    passes = steps * accumulate
    layers = size.layers + (size.vision.layers if size.vision and images else 0)
    weights = size.parameters * BYTES[how.dtype]
    return Phase(
        name,
        trained=count * length,
        flops=how.flops(count * length, length, count * judged, images),
        moved=gpus * (passes * through * weights + steps * 7 * 4 * how.trainable),
        layers=passes * through * layers,
        images=images,
        pixels=_pixels(size, images),
        precision=how.precision,
        gpus=gpus,
    )


def _trained_work(
    how: Training, phases: list[Phase], tokens: float, judged: float, images: float, steps: int,
    settings: OptimiserSettings, device: Device,
) -> Work:  # fmt: skip
    kept = how.checkpoint
    return Work(
        phases,
        how.memory(tokens, judged, device.gpu, images),
        kept,
        kept + how.saves(steps, settings.save_every),
    )


def _seen(size: Size, images: bool) -> float:
    """Tokens of a row's image."""
    return size.vision.tokens if size.vision and images else 0.0


def _pixels(size: Size, images: float) -> float:
    return images * size.vision.pixels if size.vision else 0.0
