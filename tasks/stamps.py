"""Cut-out photographs of Debian's package `tuxpaint-stamps-default`, put together to pictures.

The stamps (GPL-2, the Tux Paint team) are read where the package has put them, none is copied. Those that are used show
one thing each that nobody confuses with another.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tasks.problem import TaskError

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "/usr/share/tuxpaint/stamps"
CELLS, CELL = 4, 112
"""A picture has 4 by 4 cells of so many pixels, each with one stamp at most."""
SIDES = {"small": 54, "large": 108}
"""The longer side of a stamp, in pixels."""
BACKGROUNDS = ((176, 198, 210), (208, 200, 178), (180, 200, 176), (202, 186, 206), (196, 196, 196), (214, 190, 180))
Box: TypeAlias = list[int]
"""[left, top, right, bottom] in pixels; right and bottom are just outside."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a stamp shows: its name, its plural, and its file, or one for each colour that it comes in."""

    name: str
    plural: str
    files: Mapping[str, str]


class Placed(NamedTuple):
    """A stamp in a picture: its file and size, its cell, and where in it, as shares of what room is left."""

    file: str
    size: str
    cell: int
    right: float
    down: float


def _one(name: str, file: str, plural: str | None = None) -> Stamp:
    return Stamp(name, plural or f"{name}s", {"": f"{file}.png"})


STAMPS = (
    Stamp("apple", "apples", {"red": "food/fruit/apple_red.png", "green": "food/fruit/apple_green.png"}),
    Stamp("pepper", "peppers", {"green": "food/vegetables/pepper.png", "yellow": "food/vegetables/yellowpepper.png"}),
    _one("airplane", "vehicles/flight/planes/747"),
    _one("balloon", "vehicles/flight/balloon360"),
    _one("banana", "food/fruit/banana"),
    _one("basketball", "sports/basketball"),
    _one("bear", "animals/mammals/bears/bear"),
    _one("bus", "vehicles/masstransit/green_korean_bus", "buses"),
    _one("camel", "animals/mammals/camel/camel"),
    _one("camera", "hobbies/camera_35mm"),
    _one("car", "vehicles/auto/beetle"),
    _one("carrot", "food/vegetables/carrot"),
    _one("cow", "animals/mammals/bovines/cow"),
    _one("daffodil", "plants/flowers/daffodil"),
    _one("deer", "animals/mammals/deer/deer", "deer"),
    _one("dog", "animals/mammals/dogs/dog"),
    _one("dolphin", "animals/mammals/aquatic/dolphin"),
    _one("duck", "animals/birds/duck"),
    _one("eggplant", "food/vegetables/eggplant"),
    _one("elephant", "animals/mammals/elephant"),
    _one("fire truck", "vehicles/emergency/firetruck"),
    _one("flamingo", "animals/birds/pink_flamingo"),
    _one("fox", "animals/mammals/dogs/fox", "foxes"),
    _one("frog", "animals/amphibians/frog"),
    _one("giraffe", "animals/mammals/giraffe"),
    _one("goat", "animals/mammals/bovines/goat"),
    _one("gorilla", "animals/mammals/apes/gorilla"),
    _one("guitar", "hobbies/music/string/guitar_classical"),
    _one("hammer", "household/tools/hammer"),
    _one("horse", "animals/mammals/equines/horse"),
    _one("kangaroo", "animals/marsupials/kangaroo"),
    _one("koala", "animals/marsupials/koala"),
    _one("lemon", "food/fruit/lemon"),
    _one("light bulb", "household/Lightbulb"),
    _one("lion", "animals/mammals/cats/lion-2"),
    _one("mug", "household/dishes/mug"),
    _one("mushroom", "food/vegetables/mushroom"),
    _one("orange", "food/fruit/orange"),
    _one("owl", "animals/birds/owl"),
    _one("pear", "food/fruit/pear"),
    _one("penguin", "animals/birds/penguin"),
    _one("pig", "animals/mammals/pig"),
    _one("pineapple", "food/fruit/pineapple"),
    _one("pumpkin", "food/vegetables/pumpkin_small"),
    _one("rabbit", "animals/mammals/rodents/rabbit"),
    _one("rhinoceros", "animals/mammals/rhino_black", "rhinoceroses"),
    _one("rooster", "animals/birds/rooster"),
    _one("rose", "plants/flowers/rose"),
    _one("saw", "household/tools/saw"),
    _one("seahorse", "animals/fish/seahorse"),
    _one("sheep", "animals/mammals/bovines/sheep", "sheep"),
    _one("soccer ball", "sports/soccer"),
    _one("squirrel", "animals/mammals/rodents/squirrel"),
    _one("strawberry", "food/fruit/Strawberry2", "strawberries"),
    _one("teapot", "household/dishes/teapot"),
    _one("tennis ball", "sports/tennis_ball"),
    _one("tennis racket", "sports/tennis_racket"),
    _one("tiger", "animals/mammals/cats/tiger"),
    _one("toolbox", "household/tools/toolbox", "toolboxes"),
    _one("top hat", "clothes/hats/tophat"),
    _one("tricycle", "vehicles/cycle/pink_tricycle"),
    _one("trumpet", "hobbies/music/brass/trumpet"),
    _one("violin", "hobbies/music/string/violin"),
    _one("zebra", "animals/mammals/equines/zebra"),
)


def check_folder(folder: str) -> None:
    """Raises `TaskError` where a stamp is not there."""
    if not Path(folder).expanduser().is_dir():
        raise TaskError(f"{folder}: no such folder of stamps; apt-get install tuxpaint-stamps-default")
    for stamp in STAMPS:
        for file in stamp.files.values():
            if not (Path(folder).expanduser() / file).is_file():
                raise TaskError(f"{folder}: no {file} in it; apt-get install tuxpaint-stamps-default")


def draw(placed: Sequence[Placed], background: tuple[int, int, int], folder: str) -> tuple[bytes, list[Box]]:
    """A picture as PNG, and where each stamp is in it. Raises `TaskError` for a file that is no image."""
    from PIL import Image

    picture = Image.new("RGB", (CELLS * CELL, CELLS * CELL), background)
    boxes = []
    for each in placed:
        stamp = _cut_out(Path(folder).expanduser() / each.file, SIDES[each.size])
        left = each.cell % CELLS * CELL + int(each.right * (CELL - stamp.width))
        top = each.cell // CELLS * CELL + int(each.down * (CELL - stamp.height))
        picture.paste(stamp, (left, top), stamp)
        boxes.append([left, top, left + stamp.width, top + stamp.height])
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)
    return written.getvalue(), boxes


@lru_cache(256)
def _cut_out(path: Path, side: int) -> Image.Image:
    """The stamp without its transparent margins, its longer side of so many pixels."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            stamp = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        raise TaskError(f"{path}: cannot be read as an image ({str(error)[:200]})") from error
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    scale = side / max(stamp.size)
    return stamp.resize(
        (max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale))), Image.Resampling.LANCZOS
    )
