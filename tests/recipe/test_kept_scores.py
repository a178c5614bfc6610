"""Rows are scored once: what is known of them is taken from the score store."""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import BadRowsError, UserError
from raysandbox.recipe import score_lines, scoring
from raysandbox.recipe.api import process
from raysandbox.recipe.row_digests import sidecar_of
from raysandbox.recipe.scoring import DatasetScorers

SCORED = []  # texts that were scored in this process, and None for each load


@dataclass(frozen=True)
class Scorer:
    """Scores that show what they were made from; some texts have none, or none that is a number."""

    model: str = "a"
    columns: tuple[str, ...] = ("text",)
    keep: bool = True
    log: list = field(default_factory=lambda: SCORED, compare=False)

    def cache_identity(self, memo):
        return {"model": self.model} if self.keep else None

    def cache_columns(self):
        return self.columns

    def load(self):
        SCORED.append(None)
        return len(self.model) / 3

    def score(self, table, state):
        for name in self.columns:
            if name not in table.column_names or not pa.types.is_large_string(table.column(name).type):
                raise UserError(f"no text in '{name}'")
        rows = list(zip(*(table.column(name).to_pylist() for name in self.columns), strict=True))
        SCORED.extend("|".join(map(str, row)) for row in rows)
        return {
            "score": pa.array([self._score(row, state) for row in rows], pa.float64()),
            "parts": pa.array([[str(len(text or "")) for text in row] for row in rows], pa.list_(pa.string())),
        }

    def _score(self, row, state):
        if row[0] is None or row[0].startswith("none"):
            return None
        return float("nan") if row[0].startswith("nan") else sum(len(text or "") for text in row) / state


@pytest.fixture(autouse=True)
def _nothing_scored():
    SCORED.clear()


def texts(values):
    return [{"text": value, "n": index} for index, value in enumerate(values)]


def scored():
    """The texts that were scored since it was last asked."""
    found = [text for text in SCORED if text is not None]
    SCORED.clear()
    return found


def same(first, second):
    assert first.schema == second.schema
    for name in first.column_names:
        ours, theirs = (pa.concat_arrays(table.column(name).chunks) for table in (first, second))
        if pa.types.is_floating(ours.type):  # NaN equals itself, and the sign of zero counts
            ours, theirs = (each.view(pa.int64()) for each in (ours, theirs))
        assert ours.equals(theirs)


MIXED = ["a", "bb", "nan", "none", "a", "", "é" * 5, "nan", "bb"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("known", [[], ["a"], ["nan", "none", "é" * 5], MIXED])
def test_scores_and_output_are_those_of_a_run_without_store(tmp_path, write_jsonl, name, known):
    source, earlier = write_jsonl(texts(MIXED)), write_jsonl(texts(known), "earlier.jsonl")
    if name.endswith("parquet"):
        process({"dataset_path": str(source), "export_path": str(tmp_path / name), "process": []}, cache=False)
        source = tmp_path / name
    keeping = DatasetScorers("local", shared=tmp_path / "cache", block_bytes=40)
    keeping.score(str(earlier), Scorer())
    scored()
    for suffix in ("jsonl", "parquet"):
        plain, kept = tmp_path / f"plain.{suffix}", tmp_path / f"kept.{suffix}"
        expected = DatasetScorers("local", block_bytes=40).score(str(source), Scorer(), plain)
        scored()
        same(keeping.score(str(source), Scorer(), kept), expected)
        assert kept.read_bytes() == plain.read_bytes()
        assert set(scored()) == set(MIXED) - set(known if suffix == "jsonl" else MIXED)
        same(keeping.score(str(source), Scorer()), expected)
    assert SCORED == []  # not even loaded


@pytest.mark.parametrize("aside", [False, True])
def test_moved_thresholds_score_new_documents_only(tmp_path, write_jsonl, monkeypatch, aside):
    source = write_jsonl(texts(["x" * n for n in range(1, 40)]))
    out = tmp_path / "out.jsonl"

    def trial(least, most):
        steps = [{"text_length_filter": {"min_len": least, "max_len": most}}]
        process({"dataset_path": str(source), "export_path": str(out), "process": steps}, shared=tmp_path / "cache")
        if aside:
            sidecar_of(out).unlink()
        return DatasetScorers("local", shared=tmp_path / "cache").score(str(out), Scorer())

    assert trial(10, 30).num_rows == 21
    assert len(scored()) == 21
    expected = [n for n in range(5, 29)]
    assert trial(5, 28).column("score").to_pylist() == [n / (1 / 3) for n in expected]
    assert sorted(map(len, scored())) == [5, 6, 7, 8, 9]
    assert trial(20, 25).num_rows == 6
    if not aside:
        monkeypatch.setattr(DatasetScorers, "_scores", None)  # nothing is read any more
    assert trial(6, 30).num_rows == 25 if aside else trial(5, 28).num_rows == 24
    assert trial(21, 25).num_rows == 5
    assert scored() == []


def test_a_file_that_is_read_again_is_not_read_a_third_time(tmp_path, write_jsonl, monkeypatch):
    source = write_jsonl(texts(MIXED))
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    first = scorers.score(str(source), Scorer())
    same(scorers.score(str(source), Scorer()), first)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with monkeypatch.context() as patched:
        patched.setattr(DatasetScorers, "_scores", None)
        same(scorers.score(str(source), Scorer()), first)
    write_jsonl(texts([*MIXED, "new"]))
    assert scorers.score(str(source), Scorer()).num_rows == len(MIXED) + 1


def test_a_file_that_changes_while_it_is_scored_is_not_remembered(tmp_path, write_jsonl, monkeypatch):
    source = write_jsonl(texts(["a", "bb"]))
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    scorers.score(str(source), Scorer())
    plain = scoring.remember_lines

    def remember_lines(*given):
        write_jsonl(texts(["cccc", "ddddd"]))
        plain(*given)

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "remember_lines", remember_lines)
        scorers.score(str(source), Scorer())
    expected = DatasetScorers("local").score(str(source), Scorer())
    for _ in range(3):
        same(scorers.score(str(source), Scorer()), expected)


def test_changed_lines_are_found_out(tmp_path, write_jsonl, monkeypatch):
    """An output that changes between the look at its digests and that at its lines is read as a whole."""
    source, out = write_jsonl(texts(["a", "bb", "ccc", "dddd"])), tmp_path / "out.jsonl"
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    for least in (2, 1):
        recipe = {"export_path": str(out), "process": [{"text_length_filter": {"min_len": least}}]}
        process({"dataset_path": str(source), **recipe}, shared=tmp_path / "cache")
        if least == 2:
            scorers.score(str(out), Scorer())
    plain = score_lines.ScoredLines.write_new

    def write_new(self, target):
        out.write_bytes(out.read_bytes().replace(b"a", b"z"))
        return plain(self, target)

    monkeypatch.setattr(score_lines.ScoredLines, "write_new", write_new)
    scored()
    assert scorers.score(str(out), Scorer()).num_rows == 4
    assert scored() == ["z"]


@pytest.mark.parametrize("scorer", [Scorer("bb"), Scorer(columns=("text", "other")), Scorer(keep=False)])
def test_other_scorers_know_nothing_of_it(tmp_path, write_jsonl, scorer):
    source = write_jsonl([{"text": "a", "other": "b"}, {"text": "a", "other": "c"}])
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    scorers.score(str(source), Scorer())
    scored()
    scorers.score(str(source), scorer)
    assert len(scored()) == 2


def test_all_columns_count(tmp_path, write_jsonl):
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    scorer = Scorer(columns=("text", "other"))
    scorers.score(str(write_jsonl([{"text": "a", "other": "b"}, {"text": "b", "other": "a"}])), scorer)
    source = write_jsonl(
        [{"text": "a", "other": "b", "n": 1}, {"text": "a", "other": "a"}, {"text": "ab", "other": ""}]
    )
    scored()
    assert scorers.score(str(source), scorer).num_rows == 3
    assert scored() == ["a|a", "ab|"]


def test_without_cache_nothing_is_read_or_written(tmp_path, write_jsonl):
    source = str(write_jsonl(texts(["a"])))
    DatasetScorers("local", shared=tmp_path / "cache", use_cache=False).score(source, Scorer())
    assert not (tmp_path / "cache").exists()
    DatasetScorers("local", shared=tmp_path / "cache").score(source, Scorer())
    scored()
    DatasetScorers("local", shared=tmp_path / "cache", use_cache=False).score(source, Scorer())
    assert scored() == ["a"]


def test_rows_without_text_fail_as_without_store(tmp_path, write_jsonl):
    """What a row without text is read as depends on the rows beside it, so it is never known."""
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    source = write_jsonl(texts(["a", None]))
    for _ in range(3):
        assert scorers.score(str(source), Scorer()).column("score").to_pylist() == [3.0, None]
    assert scored() == ["a", "None", "None", "None"]
    for rows in ([{"text": None}], [{"text": 1}], [{"other": "a"}]):
        with pytest.raises(UserError, match="no text"):
            scorers.score(str(write_jsonl(rows)), Scorer())


def test_bad_rows_are_an_error_also_where_all_others_are_known(tmp_path, write_jsonl):
    scorers = DatasetScorers("local", shared=tmp_path / "cache", block_bytes=20)
    values = ["a", "b", "c", "d"]
    scorers.score(str(write_jsonl(texts(values))), Scorer())
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": value}) + "\n" for value in values) + "{\n")
    with pytest.raises(BadRowsError, match=r"in\.jsonl:5"):
        scorers.score(str(tmp_path / "in.jsonl"), Scorer(), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_damaged_segments_are_scored_again(tmp_path, write_jsonl):
    source = write_jsonl(texts(MIXED))
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    first = scorers.score(str(source), Scorer())
    scored()
    for segment in (tmp_path / "cache" / "scores").glob("*/*/*.parquet"):
        segment.write_bytes(segment.read_bytes()[:-9])
    same(scorers.score(str(source), Scorer()), first)
    assert len(scored()) == len(MIXED)
    same(scorers.score(str(source), Scorer()), first)
    assert scored() == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 40), max_size=25), min_size=1, max_size=5), st.integers(0, 10**9))
def test_any_subsets_in_any_order(tmp_path, subsets, seed):
    numbers = np.random.default_rng(seed).permutation(41)
    cache = tmp_path / f"cache-{seed}-{hash(str(subsets))}"
    seen = set()
    for subset in subsets:
        values = ["x" * int(numbers[number]) + str(number) for number in subset]
        source = tmp_path / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in texts(values)))
        SCORED.clear()
        found = DatasetScorers("local", shared=cache, block_bytes=200).score(str(source), Scorer())
        assert set(scored()) == set(values) - seen
        seen |= set(values)
        if values:
            assert found.column("score").to_pylist() == [len(value) / (1 / 3) for value in values]


@pytest.mark.usefixtures("cluster")
def test_ray_gives_the_same_and_knows_the_same(tmp_path, write_jsonl):
    source = write_jsonl(texts(MIXED * 4))
    expected = DatasetScorers("local").score(str(source), Scorer(), tmp_path / "plain.jsonl")
    DatasetScorers("local", shared=tmp_path / "cache").score(str(write_jsonl(texts(["a", "nan"]), "b.jsonl")), Scorer())
    scorers = DatasetScorers("ray", shared=tmp_path / "cache", block_bytes=100)
    for _ in range(2):
        same(scorers.score(str(source), Scorer(), tmp_path / "kept.jsonl"), expected)
        assert (tmp_path / "kept.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    scored()
    same(DatasetScorers("local", shared=tmp_path / "cache").score(str(source), Scorer()), expected)
    assert scored() == []


_CHILD = """
    import sys, time
    from pathlib import Path
    import pyarrow as pa
    from raysandbox.recipe.scoring import DatasetScorers

    folder = Path(sys.argv[1])

    class Slow:
        def cache_identity(self, memo):
            return "slow"

        def cache_columns(self):
            return ("text",)

        def load(self):
            return None

        def score(self, table, state):
            with (folder / "scored").open("a") as log:
                log.write("x" * table.num_rows)
            (folder / "begun").touch()
            time.sleep(0.3)
            return {"score": pa.array([float(len(text)) for text in table.column("text").to_pylist()])}

    table = DatasetScorers("local", shared=folder / "cache", block_bytes=100).score(str(folder / "in.jsonl"), Slow())
    print(table.num_rows, sum(table.column("score").to_pylist()))
"""


def test_two_processes_score_a_row_once(tmp_path, write_jsonl):
    write_jsonl(texts(["x" * n for n in range(20)]))
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [child.communicate(timeout=60)[0].split() for child in children] == [[b"20", b"190.0"]] * 2
    assert len((tmp_path / "scored").read_text()) == 20
