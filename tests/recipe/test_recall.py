"""The statistics store: what it knows is not computed again, and what comes out is the same."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import BadRowsError
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Mapper, Stat
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.recipe import processing
from raysandbox.recipe.api import analyze, process
from raysandbox.recipe.store import StatisticsStore

COMPUTED: list[int] = []


@register("counted_test_filter")
class CountedFilter(Filter):
    """Remembers how many rows it computed a statistic for."""

    stats: ClassVar[tuple[Stat, ...]] = (Stat("counted", "low", "high"),)
    low: float = 0
    high: float = 1e9

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        COMPUTED.append(batch.num_rows)
        return {"counted": pa.array([len(text) for text in batch.texts], pa.int64())}


@register("counted_media_test_filter")
class CountedMediaFilter(Filter):
    """The bytes of the files of a row."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    stats: ClassVar[tuple[Stat, ...]] = (Stat("bytes", "low", None),)
    low: float = 0

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        COMPUTED.append(batch.num_rows)
        lists = batch.table.column("images").to_pylist()
        return {"bytes": pa.array([sum(len(Path(path).read_bytes()) for path in paths) for paths in lists])}


@register("named_faults_test_filter")
class NamedFaultsFilter(CountedMediaFilter):
    """Names the rows whose files are missing."""

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        lists = batch.table.column("images").to_pylist()
        if faults := {row: "missing" for row, paths in enumerate(lists) if not all(map(os.path.exists, paths))}:
            raise RowFaults(faults)
        return super().compute(batch, state)


@register("failing_on_short_test_filter")
class FailingOnShortFilter(CountedFilter):
    """Cannot cope with texts of three letters."""

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        if any(len(text) == 3 for text in batch.texts):
            raise ValueError("three letters")
        return super().compute(batch, state)


@register("size_as_text_test_mapper")
class SizeAsTextMapper(Mapper):
    """Writes the size of a row's image into its text."""

    reads: ClassVar[tuple[str, ...]] = ("text", "image")

    def process(self, batch: Batch, state: Any) -> Batch:
        lists = batch.table.column("images").to_pylist()
        return batch.with_texts([f"{sum(map(os.path.getsize, paths))} bytes" for paths in lists])


@register("doubling_test_mapper")
class DoublingMapper(Mapper):
    """Writes every text twice."""

    def process(self, batch: Batch, state: Any) -> Batch:
        COMPUTED.append(batch.num_rows)
        return batch.with_texts([text * 2 for text in batch.texts])


@register("splitting_test_mapper")
class SplittingMapper(Mapper):
    """Makes two rows of each."""

    def process(self, batch: Batch, state: Any) -> Batch:
        return Batch(batch.table.take(pa.array(np.repeat(np.arange(batch.num_rows), 2))), batch.keys)


@pytest.fixture
def run(tmp_path):
    COMPUTED.clear()

    def run(steps, *, cache=True, path=tmp_path / "in.jsonl", repeats=False, block_bytes=200, **keys):
        recipe = {"dataset_path": str(path), "export_path": str(tmp_path / "out" / f"{cache}.jsonl"), **keys}
        how = {"cache": cache, "shared": tmp_path / "cache", "block_bytes": block_bytes, "expect_repeats": repeats}
        result = process({**recipe, "process": steps}, **how)
        return result, Path(result.path).read_bytes()

    return run


@pytest.fixture
def rows(write_jsonl):
    return write_jsonl([{"id": number, "text": "x" * (number * 7 % 40)} for number in range(60)])


def test_moved_thresholds_compute_nothing(run, rows):
    run(["doubling_test_mapper", {"counted_test_filter": {"low": 10, "high": 60}}])
    assert sum(COMPUTED) == 120
    COMPUTED.clear()
    steps = ["doubling_test_mapper", {"counted_test_filter": {"low": 30, "high": 50}}]
    result, content = run(steps)
    assert not COMPUTED
    assert content == run(steps, cache=False)[1]
    assert [(op.rows_in, op.rows_out) for op in result.ops] == [(60, 60), (60, result.rows_out)]
    assert 0 < result.rows_out < 60
    assert result.stats["counted"].min >= 30


def test_rows_that_an_earlier_filter_dropped_are_computed_when_they_stay(run, rows):
    run([{"text_length_filter": {"max_len": 20}}, "counted_test_filter"])
    known = sum(COMPUTED)
    assert 0 < known < 60
    COMPUTED.clear()
    result, content = run([{"text_length_filter": {"max_len": 30}}, "counted_test_filter"])
    assert 0 < sum(COMPUTED) < 60 - known
    assert known + sum(COMPUTED) >= result.ops[1].rows_in
    assert content == run([{"text_length_filter": {"max_len": 30}}, "counted_test_filter"], cache=False)[1]


@pytest.mark.parametrize("change", ["mapper", "input", "text_key"])
def test_what_a_statistic_depends_on(run, rows, write_jsonl, change):
    run(["counted_test_filter"])
    COMPUTED.clear()
    steps, keys = ["counted_test_filter"], {}
    if change == "mapper":
        steps = ["whitespace_normalization_mapper", *steps]
    elif change == "input":
        write_jsonl([{"id": number, "text": "y" * (number % 9)} for number in range(60)])
    else:
        steps = [{"counted_test_filter": {"text_key": "other"}}]
        write_jsonl([{"id": number, "text": "", "other": "y" * (number % 9)} for number in range(60)])
    assert run(steps, **keys)[1] == run(steps, cache=False)[1]
    assert sum(COMPUTED) == 120


@pytest.mark.parametrize("last", ["document_deduplicator", {"random_selector": {"select_ratio": 0.5}}])
def test_what_a_last_decision_compares_is_stored_too(run, rows, last):
    run(["doubling_test_mapper", "counted_test_filter", last])
    COMPUTED.clear()
    steps = ["doubling_test_mapper", {"counted_test_filter": {"low": 20}}, last]
    result, content = run(steps)
    assert not COMPUTED
    assert content == run(steps, cache=False)[1]
    assert 0 < result.rows_out < result.ops[1].rows_out < 60


def test_a_filter_that_drops_all(run, rows):
    steps = [{"counted_test_filter": {"low": 1000}}, {"text_length_filter": {"min_len": 3}}]
    assert run(steps)[0].rows_out == 0
    COMPUTED.clear()
    assert run([steps[0], {"text_length_filter": {"min_len": 4}}])[0].rows_out == 0
    assert not COMPUTED


def test_damaged_entries_are_computed_again(run, rows, tmp_path):
    run(["counted_test_filter"])
    files = sorted((tmp_path / "cache" / "statistics").glob("*/*/*.parquet"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    COMPUTED.clear()
    steps = [{"counted_test_filter": {"low": 5}}]
    result, content = run(steps)
    assert sum(COMPUTED) == 60
    assert "damaged" in " ".join(result.warnings)
    assert content == run(steps, cache=False)[1]
    assert "damaged" not in " ".join(run([{"counted_test_filter": {"low": 6}}])[0].warnings)


def test_rows_made_by_mappers_are_computed_every_time(run, rows):
    for low in (0, 10):
        COMPUTED.clear()
        steps = ["splitting_test_mapper", {"counted_test_filter": {"low": low}}]
        assert run(steps)[1] == run(steps, cache=False)[1]
        assert sum(COMPUTED) == 240


def test_pieces_of_a_row_are_not_taken_for_each_other(run, write_jsonl):
    """Filters may leave one piece of each row, which then has its number for itself."""
    write_jsonl([{"text": "abc def"}, {"text": "short\n\nmuch longer"}, {"text": "another"}])
    for low, high in ((6, 40), (0, 6), (0, 8), (6, 40)):
        steps = ["text_chunk_mapper", {"text_length_filter": {"min_len": low, "max_len": high}}]
        steps += [{"counted_test_filter": {"low": 6}}]
        for repeats in (False, True):
            known, content = run(steps, repeats=repeats)
            fresh, expected = run(steps, cache=False)
            assert content == expected
            assert known.stats == fresh.stats


def test_rows_with_statistics_depend_on_the_order_of_filters(run, write_jsonl):
    """Two filters with a statistic of one name: the last one's is written."""
    write_jsonl([{"text": "abcabcabc xyz some"}, {"text": "the quick brown fox the quick"}])
    for order in ((3, 5), (5, 3)):
        steps = [{"character_repetition_filter": {"rep_len": length, "max_ratio": 1.0}} for length in order]
        keys = {"keep_stats_in_res_ds": True}
        assert run(steps, **keys)[1] == run(steps, cache=False, **keys)[1]


@pytest.mark.parametrize("moment", ["settled", "_run"])
def test_what_is_read_of_a_changed_file_is_not_kept_under_its_old_name(run, tmp_path, monkeypatch, moment):
    """Neither its statistics and rows nor that its output is finished; nor are the old ones mixed with it."""
    path, steps = tmp_path / "in.jsonl", [{"counted_test_filter": {"low": 3}}]
    old, new = '{"text": "aaaa"}\n{"text": "bb"}\n', '{"text": "xx"}\n{"text": "yyyy"}\n'
    longer = {"text_length_filter": {"min_len": 1}}
    plain = getattr(processing, moment)

    def late(*given, **more):
        path.write_text(new)
        return plain(*given, **more)

    for known in (False, True):
        path.write_text(old)
        if known:
            run(steps)
        with monkeypatch.context() as patched:
            patched.setattr(processing, moment, late)
            changed = run([*steps, longer], keep_stats_in_res_ds=known)[1]
        assert changed.startswith(b'{"text":"yyyy"')
        path.write_text(old)
        assert run([*steps, longer], keep_stats_in_res_ds=known)[1].startswith(b'{"text":"aaaa"')


def test_bad_rows_go_to_quarantine_every_time(run, tmp_path):
    lines = ['{"text": "good"}', "no json", '{"text": 3}', '{"text": "better"}'] * 5
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    for high in (5, 4):
        result, content = run([{"counted_test_filter": {"high": high}}], max_bad_rows=20)
        assert (result.quarantined, result.rows_in, result.rows_out) == (10, 20, 5)
        assert content == run([{"counted_test_filter": {"high": high}}], cache=False, max_bad_rows=20)[1]


def test_a_run_that_failed_leaves_nothing_to_replay(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "good"}\n' * 3)
    (tmp_path / "data" / "b.jsonl").write_text('no json\n{"text": "good"}\n')
    for _ in range(2):
        with pytest.raises(BadRowsError):
            run(["counted_test_filter"], path=tmp_path / "data")
    assert run(["counted_test_filter"], path=tmp_path / "data", max_bad_rows=1)[0].rows_out == 4


@pytest.mark.parametrize("block_bytes", [70, 450, 1 << 20])
def test_a_run_that_ended_early_goes_on_with_other_blocks(run, rows, monkeypatch, block_bytes):
    steps = [{"counted_test_filter": {"low": 5, "high": 30}}]
    whole = run(steps, cache=False)
    COMPUTED.clear()
    compute = CountedFilter.compute

    def interrupted(*args):
        if sum(COMPUTED) >= 30:
            raise KeyboardInterrupt
        return compute(*args)

    with monkeypatch.context() as patched:
        patched.setattr(CountedFilter, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(steps)
    assert 30 <= sum(COMPUTED) < 60
    result, content = run(steps, block_bytes=block_bytes)
    assert content == whole[1]
    assert result.stats == whole[0].stats


def test_a_faulty_row_among_known_ones(run, tmp_path, write_jsonl):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"x" * (number + 1))
    (tmp_path / "4.png").unlink()
    path = write_jsonl([{"id": number, "text": "", "images": [f"{number}.png"]} for number in range(6)])
    for low in (0, 1):
        steps = [{"named_faults_test_filter": {"low": low}}]
        result, content = run(steps, path=path, max_bad_rows=3)
        assert (result.quarantined, result.rows_out) == (1, 5)
        assert b'"id":4' not in content
        assert result.stats["bytes"].max == 6


def test_media_that_mappers_read_are_looked_at_again(run, tmp_path, write_jsonl):
    (tmp_path / "a.png").write_bytes(b"xx")
    path = write_jsonl([{"text": "", "images": ["a.png"]}])
    for size in (2, 5):
        (tmp_path / "a.png").write_bytes(b"x" * size)
        result, content = run(["size_as_text_test_mapper", "counted_test_filter"], path=path)
        assert f"{size} bytes".encode() in content
        assert result.stats["counted"].max == 7


def test_word_lists_that_change_between_runs_of_a_process(run, rows, tmp_path):
    found = []
    for words in (["xxxx"], []):
        (tmp_path / "words.json").write_text(json.dumps({"all": words}))
        keys = {"flagged_words_dir": str(tmp_path / "words.json"), "lang": "all", "max_ratio": 0.5}
        found.append(run([{"flagged_words_filter": keys}])[0].rows_out)
    assert found[0] < found[1]


def test_files_that_get_another_suffix(run, tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "a.txt"
    file.write_text("some text")
    steps = [{"suffix_filter": {"suffixes": [".txt"]}}]
    assert run(steps, path=tmp_path / "data")[0].rows_out == 1
    file.rename(tmp_path / "data" / "a.md")
    assert run(steps, path=tmp_path / "data")[0].rows_out == 0


def test_bad_rows_of_an_early_pass_stay_in_quarantine(run, tmp_path):
    lines = ['{"text": "one"}', "no json", '{"text": "two words"}', '{"text": "one"}'] * 3
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    steps = ["document_deduplicator", "counted_test_filter", {"random_selector": {"select_ratio": 1.0}}]
    result, _ = run([*steps, "doubling_test_mapper"], max_bad_rows=3, keep_hashes_in_res_ds=True)
    assert (result.quarantined, result.rows_out) == (3, 2)
    assert len(Path(result.quarantine).read_text().splitlines()) == 3


def test_changed_media_are_looked_at_again(run, tmp_path, write_jsonl):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"x" * number)
    path = write_jsonl([{"text": "", "images": [f"{number}.png"]} for number in range(6)])
    run(["counted_media_test_filter"], path=path)
    COMPUTED.clear()
    assert run([{"counted_media_test_filter": {"low": 3}}], path=path)[0].rows_out == 3
    assert not COMPUTED
    (tmp_path / "1.png").write_bytes(b"x" * 9)
    assert run([{"counted_media_test_filter": {"low": 4}}], path=path)[0].rows_out == 3
    assert sum(COMPUTED) == 1


def test_an_analysis_leaves_its_statistics_to_the_processing(run, rows, tmp_path):
    recipe = {"dataset_path": str(rows), "process": ["counted_test_filter"]}
    first = analyze(recipe, out_dir=tmp_path / "analysis", shared=tmp_path / "cache")
    assert sum(COMPUTED) == 60
    again = analyze(recipe, out_dir=tmp_path / "again", shared=tmp_path / "cache")
    assert again.analysis == first.analysis
    assert sum(COMPUTED) == 60
    recipe = {**recipe, "process": [{"counted_test_filter": {"low": 9}}], "export_path": str(tmp_path / "o.jsonl")}
    assert process(recipe, shared=tmp_path / "cache").rows_out < 60
    assert sum(COMPUTED) == 60


def test_thresholds_that_are_loosened_compute_nothing_where_repeats_are_expected(run, rows):
    strict = ["doubling_test_mapper", {"text_length_filter": {"max_len": 20}}, {"counted_test_filter": {"low": 9}}]
    loose = ["doubling_test_mapper", {"text_length_filter": {"max_len": 70}}, {"counted_test_filter": {"low": 3}}]
    first, content = run(strict, repeats=True)
    assert sum(COMPUTED) == 120
    assert content == run(strict, cache=False)[1]
    COMPUTED.clear()
    second, content = run(loose)
    assert not COMPUTED
    assert first.rows_out < second.rows_out
    assert content == run(loose, cache=False)[1]


def test_the_second_run_with_other_thresholds_leaves_nothing_to_the_third(run, rows):
    def steps(high):
        return ["doubling_test_mapper", {"text_length_filter": {"min_len": 0, "max_len": high}}, "counted_test_filter"]

    run(steps(50), block_bytes=100_000)  # all in one piece
    assert 60 < sum(COMPUTED) < 120
    run(steps(60), block_bytes=100_000)
    COMPUTED.clear()
    assert run(steps(80), block_bytes=100_000)[0].rows_out == 60
    assert not COMPUTED


def test_where_most_rows_are_dropped_these_are_not_computed_for_later(run, rows):
    def steps(high):
        return [{"text_length_filter": {"min_len": 0, "max_len": high}}, "counted_test_filter"]

    run(steps(1))
    assert 0 < run(steps(2))[0].rows_out < 8
    assert sum(COMPUTED) < 20


def test_another_filter_is_all_that_is_computed(run, rows):
    run(["doubling_test_mapper", "counted_test_filter"])
    COMPUTED.clear()
    steps = ["doubling_test_mapper", "counted_test_filter", {"text_length_filter": {"min_len": 9}}]
    result, content = run(steps)
    assert result.recalled == 60
    assert content == run(steps, cache=False)[1]


def test_a_dropped_row_on_which_an_operator_fails_is_no_bad_row(run, write_jsonl, tmp_path):
    write_jsonl([{"text": "x" * number} for number in range(20)])

    def steps(low):
        return [{"text_length_filter": {"min_len": low}}, "failing_on_short_test_filter"]

    result, _ = run(steps(5), repeats=True)
    assert (result.rows_out, result.quarantined) == (15, 0)
    assert run(steps(4), cache=False)[0].rows_out == 16
    assert run(steps(4))[0].rows_out == 16
    with pytest.raises(BadRowsError):
        run(steps(2), repeats=True)
    result, _ = run(steps(2), repeats=True, max_bad_rows=5)
    assert (result.rows_out, result.quarantined, result.ops[1].failed) == (17, 1, 1)


def test_what_a_shorter_recipe_left_is_not_taken_for_the_rows_of_a_longer_one(run, rows):
    short = [{"text_length_filter": {"min_len": 3}}, "document_deduplicator"]
    assert run(short)[0].rows_out == run([*short, "alphanumeric_filter"])[0].rows_out > 0


BOUNDS = st.tuples(st.integers(0, 30), st.integers(0, 45))
RUNS = st.lists(st.tuples(BOUNDS, BOUNDS, st.booleans(), st.integers(50, 3000)), min_size=2, max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RUNS, st.booleans(), st.booleans())
def test_results_never_depend_on_the_store(run, rows, runs, mapped_first, unique):
    for (low, high), (few, many), repeats, block_bytes in runs:
        length = {"text_length_filter": {"min_len": low, "max_len": max(low, high)}}
        steps = ["doubling_test_mapper", length] if mapped_first else [length, "doubling_test_mapper"]
        steps += [{"counted_test_filter": {"low": few, "high": max(few, many)}}]
        steps += ["document_deduplicator"] if unique else []
        keys = {"keep_stats_in_res_ds": unique, "block_bytes": block_bytes}
        (known, content), (fresh, expected) = run(steps, repeats=repeats, **keys), run(steps, cache=False, **keys)
        assert content == expected
        assert known.stats == fresh.stats
        assert [(op.rows_in, op.rows_out) for op in known.ops] == [(op.rows_in, op.rows_out) for op in fresh.ops]


def test_the_least_used_entries_go_first(tmp_path):
    store = StatisticsStore(tmp_path)
    for age, name in enumerate("abc"):
        store.unit(name * 64).write("k" * 64, pa.table({"value": pa.array(range(1000))}))
        (entry,) = (tmp_path / (name * 2)).glob("*/*.parquet")
        os.utime(entry, (1000 - age, 1000 - age))
    size = entry.stat().st_size
    store.prune(2 * size)
    assert [store.unit(name * 64).has("k" * 64) for name in "abc"] == [True, True, False]
