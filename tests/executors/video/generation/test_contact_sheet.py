"""What a person looks at: every prompt has its row, before and after stand side by side, gaps are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysandbox.executors._video.clips import write_mp4
from raysandbox.executors._video.generation.contact_sheet import overview

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("av")

BLUE, ORANGE = (20, 40, 200), (230, 140, 30)


def video(path: Path, colour: tuple[int, int, int], frames: int = 5, fps: int = 8, size: int = 32) -> Path:
    """A video of one colour that fades to black."""
    fading = np.linspace(1, 0, frames)[:, None, None, None] * np.array(colour)
    write_mp4(path, np.broadcast_to(fading, (frames, size, size, 3)).astype(np.uint8), fps)
    return path


def share_of(picture, colour: tuple[int, int, int], left: float = 0, right: float = 1) -> float:
    """The share of pixels close to a colour, of a strip of the picture."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    strip = pixels[:, int(left * pixels.shape[1]) : int(right * pixels.shape[1])]
    return float((abs(strip - colour).max(axis=2) < 30).mean())


def test_before_and_after_stand_side_by_side(tmp_path) -> None:
    before, after = video(tmp_path / "b.mp4", BLUE), video(tmp_path / "a.mp4", ORANGE)
    sheet = overview(tmp_path / "out", [("a ball", [after])], [[before]])
    assert sheet == tmp_path / "out/contact_sheet.png"
    (preview,) = (tmp_path / "out/previews").iterdir()
    assert preview.name == "000-a-ball.webp"
    with Image.open(sheet) as picture:
        assert share_of(picture, BLUE, 0, 0.55) > 0.05 > share_of(picture, ORANGE, 0, 0.55)
        assert share_of(picture, ORANGE, 0.65) > 0.05 > share_of(picture, BLUE, 0.65)
    with Image.open(preview) as animation:
        assert animation.n_frames == 5
        animation.load()
        assert animation.info["duration"] == 125
        assert share_of(animation, BLUE, 0, 0.5) > 0.5 > share_of(animation, BLUE, 0.5)
        animation.seek(4)
        assert share_of(animation, BLUE) == 0


def test_many_prompts_and_videos_are_cut_and_counted(tmp_path) -> None:
    path = video(tmp_path / "a.mp4", ORANGE)
    sizes = []
    for prompts in (16, 17, 940):
        sheet = overview(tmp_path / str(prompts), [(f"prompt {n}", [path] * 2) for n in range(prompts)])
        assert len(list((tmp_path / str(prompts) / "previews").iterdir())) == 16
        with Image.open(sheet) as picture:
            sizes.append(picture.size)
    assert sizes[1] == sizes[2]
    assert sizes[1][1] > sizes[0][1]  # the line that says how many are not shown
    five, three = (overview(tmp_path / str(n), [("a", [path] * n)]).read_bytes() for n in (5, 3))
    assert len(five) > len(three)  # says "(2 more videos)"
    with Image.open(tmp_path / "5/contact_sheet.png") as one, Image.open(tmp_path / "3/contact_sheet.png") as other:
        assert one.size == other.size


def test_missing_and_damaged_videos_leave_gaps(tmp_path) -> None:
    good = video(tmp_path / "a.mp4", ORANGE)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(good.read_bytes()[:200])
    prompts = [("one", [good, tmp_path / "missing.mp4"]), ("two", [damaged, good]), ("three", [damaged])]
    sheet = overview(tmp_path / "out", prompts, [[None, good], [good], []])
    names = sorted(path.name for path in (tmp_path / "out/previews").iterdir())
    assert names == ["000-one.webp", "001-two.webp"]  # of the third there is nothing to show
    with Image.open(sheet) as picture:
        assert share_of(picture, (205, 205, 205)) > 0.1


def test_videos_of_other_lengths_and_sizes_go_together(tmp_path) -> None:
    long = video(tmp_path / "long.mp4", ORANGE, frames=100, fps=10, size=320)
    short = video(tmp_path / "short.mp4", BLUE, frames=10, fps=5, size=64)
    overview(tmp_path / "out", [("both", [long])], [[short]])
    with Image.open(tmp_path / "out/previews/000-both.webp") as animation:
        assert animation.n_frames == 48
        assert animation.size[1] < 300
        animation.seek(24)  # 5 s: the short one lasts 2 s and is in its third round
        assert share_of(animation, BLUE, 0, 0.5) == 0
        animation.seek(20)  # 4.17 s: just begun anew
        assert share_of(animation, BLUE, 0, 0.4) > 0.1


@pytest.mark.parametrize("prompt", ["a/b", "", "…", "../../x", "a\n'\"b", "猫 🐈", "long " * 80])
def test_any_prompt_makes_a_file_in_the_folder(tmp_path, prompt) -> None:
    path = video(tmp_path / "a.mp4", ORANGE, frames=2)
    overview(tmp_path / "out", [(prompt, [path]), (prompt, [path])])
    assert len(list((tmp_path / "out/previews").iterdir())) == 2


def test_the_same_videos_give_the_same_bytes_and_an_earlier_sheet_goes(tmp_path) -> None:
    path = video(tmp_path / "a.mp4", ORANGE)
    first = overview(tmp_path, [("a", [path]), ("b", [path])]).read_bytes()
    again = overview(tmp_path, [("a", [path]), ("b", [path])]).read_bytes()
    assert first == again
    overview(tmp_path, [("a", [path])])
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["000-a.webp"]


def test_nothing_is_left_when_it_fails(tmp_path) -> None:
    with pytest.raises(AttributeError):
        overview(tmp_path, [("a", [None])], [[5]])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []
