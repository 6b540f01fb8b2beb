"""Bad image files are counted by reason and never end a run; the good ones come in a fixed order."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.base import EngineError
from engines.rendering import open_image
from tasks import images
from tasks.problem import TaskError
from tasks.registry import load


def noise(mode: str = "RGB", side: int = 24) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).convert(mode)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise().save(buffer, kind)
    return buffer.getvalue()


def test_bad_files_are_counted_by_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 40)
    noise().save(tmp_path / "good.png")
    (tmp_path / "zero.png").touch()
    (tmp_path / "torn.jpg").write_bytes(encoded("JPEG")[:-200])
    (tmp_path / "torn.png").write_bytes(encoded("PNG")[:200])
    (tmp_path / "text.webp").write_text("no image")
    noise(side=41).save(tmp_path / "big.png")
    (tmp_path / "notes.txt").write_text("not an image, and none is claimed")
    (tmp_path / "folder.png").mkdir()
    rows = load("images", folder=str(tmp_path))
    assert [p.id for p in rows.pictures] == ["good.png"]
    assert dict(rows.dropped) == {
        "empty_file (file zero.png)": 1,
        "unreadable (files text.webp, torn.jpg, torn.png)": 3,
        "huge (file big.png)": 1,
    }
    assert rows.lost == 0  # nobody has asked anything about them


def test_only_the_images_of_the_slice_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        noise().save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_text("outside of the slice")
    (tmp_path / "3.png").write_text("inside")
    opened: list[str] = []
    real = images.problem_with
    monkeypatch.setattr(images, "problem_with", lambda path: opened.append(path.name) or real(path))
    rows = load("images", folder=str(tmp_path), skip=2, take=3)
    assert [p.id for p in rows.pictures] == ["2.png", "4.png"]
    assert dict(rows.dropped) == {"unreadable (file 3.png)": 1}
    assert sorted(opened) == ["2.png", "3.png", "4.png"]


def test_a_decompression_bomb_is_huge_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    noise().save(tmp_path / "bomb.png")
    assert images.problem_with(tmp_path / "bomb.png") == "huge"
    with pytest.raises(EngineError, match=r"bomb\.png"):
        open_image(str(tmp_path / "bomb.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_files_damaged_anywhere_are_bad_for_the_folder_and_the_engine_alike(kind: str, tmp_path: Path) -> None:
    """Cut short or overwritten at many places: never another exception than the one that is a counted row."""
    whole = encoded(kind)
    path = tmp_path / "x.png"
    rng = np.random.default_rng(1)
    for at in np.linspace(0, len(whole) - 1, 40, dtype=int):
        for damaged in (whole[:at], whole[:at] + rng.bytes(8) + whole[at + 8 :]):
            path.write_bytes(damaged)
            bad = images.problem_with(path)
            if bad:
                with pytest.raises(EngineError, match="not a readable image"):
                    open_image(str(path))
            else:
                assert open_image(str(path)).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16"])
def test_every_colour_mode_is_read_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    (noise("L").convert("I;16") if mode == "I;16" else noise(mode)).save(path)
    assert images.problem_with(path) is None
    assert open_image(str(path)).mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "scan.png")
    with Image.open(tmp_path / "scan.png") as stored:
        assert stored.mode == "I;16"
    opened = open_image(str(tmp_path / "scan.png"))
    assert [opened.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3]


def test_a_photo_taken_sideways_is_upright(tmp_path: Path) -> None:
    photo = Image.new("RGB", (2, 1), "red")
    photo.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    photo.save(tmp_path / "phone.png", exif=exif)
    opened = open_image(str(tmp_path / "phone.png"))
    assert opened.size == (1, 2)
    assert [opened.getpixel((0, y)) for y in range(2)] == [(255, 0, 0), (0, 0, 255)]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    layered = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    layered.putpixel((1, 0), (0, 0, 0, 0))
    layered.save(tmp_path / "rgba.png")
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    for name in ("rgba.png", "palette.png"):
        opened = open_image(str(tmp_path / name))
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_ids_are_paths_inside_the_folder_in_order_and_a_split_is_a_subfolder(tmp_path: Path) -> None:
    for name in ("train/b.png", "train/a/c.PNG", "test/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        noise().save(tmp_path / name)
    assert [p.id for p in images.load("train", str(tmp_path)).pictures] == ["a/c.PNG", "b.png"]
    assert [p.id for p in images.load("test", str(tmp_path)).pictures] == ["a.png"]
    everything = images.load("validation", str(tmp_path)).pictures
    assert [p.id for p in everything] == ["test/a.png", "train/a/c.PNG", "train/b.png"]
    assert all(Path(p.path).is_absolute() and Path(p.path).is_file() for p in everything)


def test_a_folder_without_an_image_says_why(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no image files in it"):
        images.load("train", str(tmp_path))
    (tmp_path / "zero.png").touch()
    with pytest.raises(TaskError, match="1 empty_file"):
        load("images", folder=str(tmp_path))
    with pytest.raises(TaskError, match="no such folder"):
        images.load("train", str(tmp_path / "nowhere"))
