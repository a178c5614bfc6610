import subprocess
from pathlib import Path

import numpy as np
import opencc
import pytest

from raysandbox.ops.mappers import chinese_convert_mapper


@pytest.mark.parametrize(
    ("mode", "text", "expected"),
    [
        ("s2t", "头发在后面 ok", "頭髮在後面 ok"),
        ("t2s", "頭髮在後面", "头发在后面"),
        ("s2twp", "鼠标和内存", "滑鼠和記憶體"),
        ("t2jp", "國", "国"),
        ("s2tw", "国\0国\0", "國\0國\0"),
        ("s2tw", "no\0ne", "no\0ne"),
    ],
)
def test_conversions(mapped, mode, text, expected):
    assert mapped("chinese_convert_mapper", [text, ""], mode=mode) == [expected, ""]


def test_unknown_mode(mapped):
    with pytest.raises(ValueError, match="'t2s'"):
        mapped("chinese_convert_mapper", [], mode="s2x")


def test_every_entry_of_the_dictionaries_holds_an_ideograph(tmp_path):
    """A text without one is not changed; `opencc_dict` comes with the package."""
    folder = Path(opencc.__file__).parent / "clib"
    ideographs = set(map(chr, np.flatnonzero(chinese_convert_mapper._ideographs()).tolist()))
    dictionaries = sorted((folder / "share" / "opencc").glob("*.ocd2"))
    assert len(dictionaries) > 10
    for dictionary in dictionaries:
        text = tmp_path / f"{dictionary.stem}.txt"
        command = [folder / "bin" / "opencc_dict", "-i", dictionary, "-o", text, "-f", "ocd2", "-t", "text"]
        subprocess.run(command, check=True, capture_output=True)
        keys = [line.partition("\t")[0] for line in text.read_text(encoding="utf-8").splitlines()]
        assert keys
        assert not [key for key in keys if ideographs.isdisjoint(key)]
