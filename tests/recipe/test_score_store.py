import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.recipe.score_store import ScoreIndex, index_of, merged_scores


def digests_of(numbers):
    return np.array([(number * 7919 % 1000, number) for number in numbers], np.uint64).reshape(-1, 2)


def scores_of(numbers):
    return pa.table({"score": pa.array([float(number) for number in numbers]), "row": pa.array(numbers, pa.int32())})


@pytest.fixture
def index(tmp_path):
    return index_of(tmp_path, {"model": "a"})


def segments(index):
    return sorted(index.folder.glob("*/*/*.parquet"))


def test_values_and_types_survive(index):
    odd_nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_1234))[0]
    table = pa.table(
        {
            "score": pa.array([odd_nan, None, -0.0, 1e-310]),
            "flag": pa.array([1, None, 0, 1], pa.int8()),
            "label": pa.array(["a", None, "", "é"], pa.large_string()),
            "many": pa.array([[1.5, None], None, [], [2.0]], pa.list_(pa.float32())),
            "kind": pa.array(["x", "x", None, "y"]).dictionary_encode(),
            "none": pa.nulls(4),
        }
    )
    digests = digests_of([3, 1, 2, 0])
    index.add(digests, table)
    known = index.read()
    found = known.take(known.find(digests))
    assert found.schema == table.schema
    assert found.drop_columns(["score"]).to_pydict() == table.drop_columns(["score"]).to_pydict()
    bits = [column.combine_chunks().view(pa.int64()) for column in (found.column("score"), table.column("score"))]
    assert bits[0].equals(bits[1])


def test_other_identities_know_nothing(tmp_path, index):
    index.add(digests_of([1]), scores_of([1]))
    assert index_of(tmp_path, {"model": "b"}).read().find(digests_of([1])).tolist() == [-1]
    assert index_of(tmp_path, {"model": "a"}) == index


def test_equal_first_halves_are_told_apart(index):
    digests = np.array([(5, 1), (5, 2), (6, 1)], np.uint64)
    index.add(digests[1:], scores_of([2, 3]))
    known = index.read()
    assert known.find(digests).tolist() == [-1, 0, 1]


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 300), max_size=40), min_size=1, max_size=24))
def test_what_was_added_is_known_however_it_came(tmp_path_factory, parts):
    index = ScoreIndex(tmp_path_factory.mktemp("scores"), "0" * 40)
    for part in parts:
        index.add(digests_of(part), scores_of(part))
    known = index.read()
    numbers = list(range(301))
    positions = known.find(digests_of(numbers))
    expected = {number for part in parts for number in part}
    assert {number for number, position in zip(numbers, positions, strict=True) if position >= 0} == expected
    found = known.take(positions[positions >= 0])
    assert found.column("row").to_pylist() == sorted(expected)
    assert len(segments(index)) <= 9


def test_segments_are_merged_without_repeats(index):
    for _ in range(9):
        index.add(digests_of([1, 2]), scores_of([1, 2]))
    assert len(segments(index)) == 1
    assert index.read().scores.num_rows == 2


def test_a_damaged_segment_counts_as_absent(index, caplog):
    index.add(digests_of([1]), scores_of([1]))
    (damaged,) = segments(index)
    content = bytearray(damaged.read_bytes())
    content[20] ^= 255
    damaged.write_bytes(content)
    index.add(digests_of([2]), scores_of([2]))
    assert index.read().find(digests_of([1, 2])).tolist() == [-1, 0]
    assert "1 damaged segments" in caplog.text
    assert not damaged.exists()


def test_segments_that_another_process_merges_meanwhile_are_read_again(index, monkeypatch):
    from raysandbox.recipe.store import UnitFolder

    index.add(digests_of([1]), scores_of([1]))
    index.add(digests_of([2]), scores_of([2]))
    plain, merged = UnitFolder.read, []

    def read(self, key):
        if not merged:
            merged.append(True)
            for number in range(3, 11):
                index.add(digests_of([number]), scores_of([number]))
        return plain(self, key)

    monkeypatch.setattr(UnitFolder, "read", read)
    assert (index.read().find(digests_of(range(1, 11))) >= 0).all()


def test_pruning_removes_what_was_not_used(tmp_path, index):
    index.add(digests_of([1]), scores_of([1]))
    index.prune()
    assert len(segments(index)) == 1
    index.prune(limit=0)
    assert not segments(index)


@given(st.lists(st.booleans(), min_size=1))
def test_known_and_made_scores_are_put_in_order(missing):
    whole = scores_of(list(range(len(missing))))
    mask = np.array(missing)
    merged = merged_scores(whole.filter(pa.array(~mask)), whole.filter(pa.array(mask)), mask)
    assert merged.equals(whole)
