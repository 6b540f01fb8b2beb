"""A checkpoint: a Hugging Face model directory (or hub name), or an adapter directory with its base.

An adapter is PEFT's, or a loop over some of the base's layers (`engines.looped`), whose base may be an adapter itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from engines.base import EngineError, first_line
from engines.json_file import read_object
from engines.looped.config import CONFIG_FILE, LoopConfig, is_looped
from engines.tensor_file import check_whole

_WEIGHTS = ("*.safetensors", "*.bin")


def is_adapter(path: Path) -> bool:
    """True for an adapter directory, PEFT's or a loop's."""
    return (path / CONFIG_FILE).is_file()


def base_of(path: Path) -> str:
    """The base model that an adapter directory names."""
    name = read_object(path / CONFIG_FILE).get("base_model_name_or_path")
    if not name:
        raise EngineError(
            f"{path / CONFIG_FILE}: names no base_model_name_or_path; add the base the adapter was trained on"
        )
    return str(name)


def with_bases(path: str) -> Iterator[str]:
    """A checkpoint, the base under it where it is an adapter, and so on down to a whole model.

    Raises `EngineError` at an adapter whose base is itself, by its own config or by those of others.
    """
    seen = set()
    while True:
        yield path
        directory = Path(path)
        if not is_adapter(directory):
            return
        seen.add(directory.resolve())
        base = base_of(directory)
        if Path(base).resolve() in seen:
            raise EngineError(
                f"{directory / CONFIG_FILE}: base_model_name_or_path {base} leads back to the adapter itself; "
                "name the model that it was trained on"
            )
        path = base


def tokenizer_place(path: str) -> str:
    """Where the tokenizer of a checkpoint is: with it, or with the first base under it that has one."""
    place = path
    for place in with_bases(path):
        if (Path(place) / "tokenizer_config.json").is_file():
            break
    return place


def check_checkpoint(path: str) -> None:
    """Raises `EngineError` where a local directory cannot be a checkpoint, such as one with half a config.

    So it is with the bases under it. A hub name passes: the hub is not asked.
    """
    for each in with_bases(path):
        _check_one(each)


def _check_one(path: str) -> None:
    directory = Path(path)
    if not directory.exists():
        if path.count("/") == 1 and not path.startswith((".", "/", "~")):
            return
        raise EngineError(f"{path}: no such model directory")
    if is_adapter(directory):
        if not any(directory.glob("adapter_model.*")):
            raise EngineError(f"{path}: an adapter's config but no adapter_model.safetensors; the save was interrupted")
        if is_looped(directory):
            LoopConfig.read(directory)
        _check_weights(directory, "adapter_model*.safetensors")
        return
    if not (directory / "config.json").is_file():
        inside = sorted({each.parent for depth in ("*", "*/*") for each in directory.glob(f"{depth}/config.json")})
        there = f"; inside there are {', '.join(map(str, inside[:5]))}" if inside else ""
        raise EngineError(f"{path}: no config.json, so this is no Hugging Face model directory{there}")
    read_object(directory / "config.json")
    if not any(next(directory.glob(pattern), None) for pattern in _WEIGHTS):
        raise EngineError(f"{path}: a config but no weights (*.safetensors); the save was interrupted or left them out")
    _check_weights(directory, "model*.safetensors")


def _check_weights(directory: Path, pattern: str) -> None:
    for file in sorted(directory.glob(pattern)):
        check_whole(file)


def load_processor(path: str, *, trust_remote_code: bool = False) -> Any:
    """The processor of a multimodal checkpoint, the tokenizer of a text one."""
    from transformers import AutoProcessor, AutoTokenizer

    path = tokenizer_place(path)
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        try:
            processor = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        except (OSError, ValueError):
            raise EngineError(f"{path}: no processor or tokenizer could be loaded ({first_line(error)})") from error
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def load_model(path: str, *, dtype: str = "auto", trust_remote_code: bool = False, merge: bool = True) -> Any:
    """The model of a checkpoint, in evaluation mode on the CPU.

    An adapter is merged into its base (`merge=True`: same outputs, no extra cost per token) or left as a trainable
    PEFT model (`merge=False`). A loop stays a loop, on its merged base; `engines.looped.loop.loop_of` finds it.
    """
    check_checkpoint(path)
    directory = Path(path)
    if is_looped(directory):
        from engines.looped.files import load_loop

        config = LoopConfig.read(directory)
        base = config.base_model_name_or_path
        if is_adapter(Path(base)):
            model = load_model(base, dtype=dtype, trust_remote_code=trust_remote_code)
        else:
            model = _whole_model(base, dtype, trust_remote_code, config.revision)
        load_loop(model, directory, base)
        return model.eval()
    adapter = directory if is_adapter(directory) else None
    model = _whole_model(base_of(adapter) if adapter else path, dtype, trust_remote_code)
    if adapter:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(adapter), is_trainable=not merge)
        except (KeyError, RuntimeError, TypeError, UnpicklingError, ValueError) as error:
            raise EngineError(
                f"{adapter}: PEFT could not load this adapter ({type(error).__name__}: {first_line(error)}); "
                f"see that {CONFIG_FILE} fits its weights and its base, or save it again"
            ) from error
        if merge:
            model = model.merge_and_unload()
    return model.eval()


def _whole_model(source: str, dtype: str, trust_remote_code: bool, revision: str | None = None) -> Any:
    import transformers

    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision is not None:
        common["revision"] = revision
    try:
        config = transformers.AutoConfig.from_pretrained(source, **common)
        multimodal = getattr(config, "vision_config", None) is not None
        auto = transformers.AutoModelForImageTextToText if multimodal else transformers.AutoModelForCausalLM
        model, told = auto.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **common
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"{source}: the model could not be loaded ({first_line(error)})") from error
    # Transformers draws them by chance. A buffer that is not there is made, not drawn.
    absent = {name for name, *_ in told["mismatched_keys"]} | set(told["missing_keys"])
    if drawn := sorted(absent & {name for name, _ in model.named_parameters()}):
        others = f" and {len(drawn) - 1} others" if len(drawn) > 1 else ""
        raise EngineError(
            f"{source}: {drawn[0]}{others}: not in its weights, or of another shape than its config.json says; copy or "
            "save the checkpoint again"
        )
    return model


@contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    """A model that may be in training, with its dropout off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a completion: those of the generation config and the tokenizer's."""
    found = model.generation_config.eos_token_id
    return {i for i in (*(found if isinstance(found, list) else [found]), tokenizer.eos_token_id) if i is not None}
