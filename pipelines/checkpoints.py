"""The checkpoints of a run, and which of them a later one is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import EngineError
from engines.checkpoint import tokenizer_place, with_bases
from engines.json_file import read_object
from engines.looped.config import LoopConfig, is_looped, without_loop
from pipelines.manifest import digest_of
from pipelines.sections import fingerprint
from pipelines.stage import StageHandle
from pipelines.training import named_checkpoint

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.sections import ModelSettings

CHECKPOINT_KINDS = ("tune", "update", "reinforce", "reflect", "recur")
REASONER = "latent_reasoner"
"""The model type of recurrent reasoners."""
PRETRAINED = "pretrained"
"""The name of the model that the recipe starts from, where it is not built in the recipe."""
_SERVERS = ("vllm", "endpoint")
"""Engines that run the model's own layers and nothing else."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights under a name. `fingerprint` changes when they do; `previous` is the checkpoint they began as."""

    name: str
    path: str
    fingerprint: str
    arm: str | None = None
    previous: str | None = None


def checkpoints(context: StageContext) -> list[Checkpoint]:
    """The model the recipe starts from, unless it was built there and knows nothing, then all that were trained."""
    found = []
    start = None if context.recipe.model.path is None else PRETRAINED
    if start is not None:
        identity = digest_of({name: context.sections.get(name) for name in ("model", "model files")})
        found.append(Checkpoint(start, named_checkpoint(context.recipe.model), identity))
    for handle in context.upstream:
        if handle.kind in CHECKPOINT_KINDS:
            before = previous_of(handle, context.upstream)
            previous = name_of(before) if before else start
            path = str(handle.directory / "checkpoint")
            found.append(Checkpoint(name_of(handle), path, handle.manifest.fingerprint, handle.arm, previous))
    return found


def engine_kind(path: str) -> str:
    """The engine that runs a checkpoint on any machine, by its config; one on the hub is taken for a causal model."""
    config = Path(root_of(path)) / "config.json"
    values = read_object(config) if config.is_file() else {}
    if values.get("model_type") == REASONER:
        return "latent"
    causal = values.get("is_causal", values.get("text_config", {}).get("is_causal", True))
    return "transformers" if causal else "diffusion"


def check_loop(path: str, engine: str) -> None:
    """Raises `EngineError` for a looped checkpoint, where an engine of this kind cannot run the loop."""
    if engine in _SERVERS:
        without_loop(path, engine)


def depth_of(model: ModelSettings) -> int | None:
    """How many layers the (text) model that a recipe starts from has; None where the hub alone can tell."""
    if model.build is not None:
        return model.build.layers
    place = model.adapter or model.path
    try:
        config = Path(root_of(place or "")) / "config.json"
        values = read_object(config) if place and config.is_file() else {}
    except EngineError:
        return None  # a line on the model says so
    text = values.get("text_config")
    depth = (text if isinstance(text, dict) else values).get("num_hidden_layers")
    return depth if isinstance(depth, int) else None


def model_kind(model: ModelSettings) -> str | None:
    """`engine_kind` of the model that a recipe starts from; None where there is none, or the hub alone can tell."""
    if model.build is not None:
        return "diffusion" if model.build.architecture == "masked_llama" else "transformers"
    place = model.adapter or model.path
    if place is None:
        return None
    try:
        return engine_kind(place) if (Path(root_of(place)) / "config.json").is_file() else None
    except EngineError:
        return None  # a line on the model says so


def iterations_of(found: Sequence[Checkpoint], engine: Any) -> dict[str, int]:
    """Name -> iterations that an engine of these settings makes, of the checkpoints that have a loop."""
    loops = {each.name: LoopConfig.read(Path(each.path)).loop for each in found if is_looped(Path(each.path))}
    asked = getattr(engine, "iterations", None)
    return {name: loop.iterations if asked is None else asked for name, loop in loops.items()}


def root_of(path: str) -> str:
    """The model under a checkpoint's adapters: a directory, or a name on the hub."""
    *_, root = with_bases(path)
    return str(Path(root))


def layers_of(path: str) -> list[Path]:
    """A local checkpoint's directory and, for an adapter, those of the bases under it; empty for a name on the hub."""
    return [Path(each) for each in with_bases(path) if Path(each).is_dir()]


def identity_of(path: str) -> str:
    """Changes when the files of a checkpoint or of its bases do; the name of one on the hub."""
    found = layers_of(path)
    return digest_of([fingerprint(each) for each in found]) if found else path


def hub_commit(name: str) -> str | None:
    """The commit of a model on the hub that lies in this machine's cache; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent.name if isinstance(config, str) else None


def chat_template(path: str) -> str | None:
    """How a local checkpoint says that a conversation is put to it; empty where nothing says so, None on the hub."""
    directory = Path(tokenizer_place(path))
    config = directory / "tokenizer_config.json"
    if not config.is_file():
        return None
    for name in ("chat_template.jinja", "chat_template.json"):
        if (directory / name).is_file():
            return (directory / name).read_text(encoding="utf-8")
    return str(read_object(config).get("chat_template") or "")


def previous_of(handle: StageHandle, upstream: Sequence[StageHandle]) -> StageHandle | None:
    """The stage whose weights `handle` went on from; None where those were the recipe's model."""
    by_name = {name_of(each): each for each in upstream}
    ancestors: set[str] = set()
    pending = [name_of(handle)]
    while pending:
        new = [name for name in by_name[pending.pop()].manifest.inputs if name in by_name and name not in ancestors]
        ancestors.update(new)
        pending += new
    from_recipe = handle.manifest.source.get("settings", {}).get("start") == "recipe"
    kinds = ("update",) if from_recipe else CHECKPOINT_KINDS
    line = [each for each in upstream if name_of(each) in ancestors and each.kind in kinds]
    return line[-1] if line else None


def name_of(handle: StageHandle) -> str:
    """The stage's own name: that of the handle carries the seed's directory where a recipe has several."""
    return handle.manifest.stage


def pairs_to_compare(found: Sequence[Checkpoint], control: str) -> dict[tuple[str, str], list[str]]:
    """(a, b) -> why they are compared: `previous`, `first`, `control`."""
    pairs: dict[tuple[str, str], list[str]] = {}
    names = {each.name for each in found}
    for each in found:
        against = f"{each.name.partition('@')[0]}@{control}"
        for role, other in (
            ("previous", each.previous),
            ("first", found[0].name),
            ("control", against if against in names else None),
        ):
            if other is not None and other != each.name:
                pairs.setdefault((each.name, other), []).append(role)
    return pairs
