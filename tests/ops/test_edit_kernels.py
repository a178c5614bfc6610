import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops.batch import Batch
from raysandbox.ops.text import CodePoints, code_points, edit, with_points

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=6)


def points_of(texts):
    bounds = np.cumsum([0, *map(len, texts)])
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    return CodePoints(codes, bounds[:-1], bounds[1:])


@settings(deadline=None)  # the first call may compile
@given(TEXTS, st.data())
def test_spliced_rows_spell_what_was_put_together(texts, data):
    spans, new, expected = [], [], []
    start = 0
    for row, text in enumerate(texts):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        made, copied = "", 0
        for left, right in zip(cuts[::2], cuts[1::2], strict=False):
            new.append(data.draw(st.sampled_from(["", "x", "é文😀"])))
            spans.append((row, start + left, start + right, 0))
            made, copied = made + text[copied:left] + new[-1], right
        expected.append(made + text[copied:])
        start += len(text)
    spliced = points_of(texts).splice(np.array(spans, np.int64).reshape(-1, 4), new)
    assert spliced.slices(spliced.starts, spliced.ends) == expected


@settings(deadline=None)
@given(TEXTS, st.data())
def test_rows_of_code_points_become_texts(texts, data):
    new = [data.draw(st.sampled_from([text, "", "é文😀" + text])) for text in texts]
    rows = np.flatnonzero([a != b for a, b in zip(texts, new, strict=True)])
    batch = Batch.from_table(pa.table({"text": pa.array(texts, pa.string())}))
    changed = with_points(batch, points_of(new), rows)
    assert changed.table.column("text").to_pylist() == new
    assert changed.table.schema == batch.table.schema


def test_edit_without_a_change_returns_the_batch():
    batch = Batch.from_table(pa.table({"text": ["one", "two"]}))
    assert edit(batch, np.array([[0, 0, 2, 0]]), lambda text, _: text) is batch
    changed = edit(batch, np.array([[1, 3, 4, 0]]), lambda text, _: text.upper())
    assert changed.texts == ["one", "Two"]
    assert code_points(changed).text(1) == "Two"
