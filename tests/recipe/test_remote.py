import contextlib
import functools
import gzip
import json
import re
import threading
import uuid
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysandbox.core.errors import ConfigError, JobFailed
from raysandbox.core.names import is_remote, local_name
from raysandbox.recipe.api import process
from raysandbox.recipe.inputs import find_files, plan_reads
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.remote import list_remote, remote_stamps, upload

ROWS = [{"n": n, "text": f"row {n}"} for n in range(200)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.fixture
def memory():
    """A folder of its own in memory, at a URL."""
    name = f"bucket-{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    system.makedirs(f"/{name}")
    yield f"memory:///{name}"
    system.rm(f"/{name}", recursive=True)


def put(url, data):
    with fsspec.open(url, "wb") as stream:
        stream.write(data)


def get(url):
    with fsspec.open(url, "rb") as stream:
        return stream.read()


def run(source, target, shared, **keys):
    recipe = {"dataset_path": source, "export_path": str(target), "process": [], **keys}
    return process(recipe, engine="local", block_bytes=keys.pop("block_bytes", 1000), shared=shared)


def exported(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class Ranges(Quiet):
    """Serves pieces of files, as real servers of data do."""

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            super().do_GET()
            return
        with open(self.translate_path(self.path), "rb") as stream:
            data = stream.read()
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(data[start:end])


class Sizeless(Quiet):
    """Does not say how large files are."""

    def send_header(self, keyword, value):
        if keyword != "Content-Length":
            super().send_header(keyword, value)


@contextlib.contextmanager
def served(folder, handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_which_paths_are_remote():
    assert is_remote("s3://bucket/a.jsonl")
    assert not is_remote("file:///a.jsonl")
    assert not is_remote("a/b://c")
    assert local_name("file:///a.jsonl") == "/a.jsonl"


def test_json_lines_are_cut_into_pieces(memory, tmp_path):
    put(f"{memory}/a.jsonl", LINES)
    files, _ = find_files(f"{memory}/a.jsonl", frozenset())
    assert len(plan_reads(files, 1000)) > 3
    assert run(f"{memory}/a.jsonl", tmp_path / "out.jsonl", tmp_path).rows_in == 200
    assert exported(tmp_path / "out.jsonl") == ROWS


def test_folders_and_globs(memory, tmp_path):
    for name in ("b/2.jsonl", "a.jsonl", ".hidden/x.jsonl", "_x.jsonl", "b/notes.txt"):
        put(f"{memory}/{name}", json.dumps({"text": name}).encode() + b"\n")
    files, warnings = find_files(memory, frozenset())
    assert [file.path.removeprefix(memory) for file in files] == ["/a.jsonl", "/b/2.jsonl"]
    assert "1 text files" in warnings[0]
    assert [file.path for file in find_files(f"{memory}/*.jsonl", frozenset())[0]] == [
        f"{memory}/_x.jsonl",
        f"{memory}/a.jsonl",
    ]
    with pytest.raises(ConfigError, match="no such file, folder or match"):
        find_files(f"{memory}/nothing.jsonl", frozenset())


def test_parquet_and_packed_files(memory, tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=50)
    put(f"{memory}/a.parquet", sink.getvalue().to_pybytes())
    put(f"{memory}/b.jsonl.gz", gzip.compress(LINES))
    assert len(plan_reads(find_files(f"{memory}/a.parquet", frozenset())[0], 100)) == 4
    run(f"{memory}/*", tmp_path / "out.jsonl", tmp_path)
    assert exported(tmp_path / "out.jsonl") == ROWS * 2


def test_bad_rows_are_named_by_line(memory, tmp_path):
    put(f"{memory}/a.jsonl", LINES + b"{\n")
    result = run(f"{memory}/a.jsonl", tmp_path / "out.jsonl", tmp_path, max_bad_rows=1)
    assert json.loads(Path(result.quarantine).read_text())["line"] == 201


@pytest.mark.parametrize("handler", [Ranges, Quiet, Sizeless])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz"])
def test_web_servers_with_and_without_pieces(tmp_path, handler, name):
    served_folder = tmp_path / "data"
    served_folder.mkdir()
    (served_folder / "a.jsonl").write_bytes(LINES)
    (served_folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES))
    pq.write_table(pa.Table.from_pylist(ROWS), served_folder / "a.parquet", row_group_size=50)
    with served(served_folder, handler) as url:
        files, _ = find_files(f"{url}/{name}", frozenset())
        assert files[0].seekable == (handler is Ranges)
        run(f"{url}/{name}", tmp_path / "out.jsonl", tmp_path)
    assert exported(tmp_path / "out.jsonl") == ROWS


def test_the_query_of_an_address_is_no_suffix(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    with served(tmp_path, Quiet) as url:
        assert find_files(f"{url}/a.jsonl?download=true", frozenset())[0][0].format == "jsonl"


def test_file_urls_are_local(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    result = run(f"file://{tmp_path}/a.jsonl", f"file://{tmp_path}/out.jsonl", tmp_path)
    assert result.path == f"{tmp_path}/out.jsonl"
    assert exported(tmp_path / "out.jsonl") == ROWS


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv", "jsonl.zst"])
def test_outputs_at_urls(memory, tmp_path, monkeypatch, write_jsonl, suffix):
    monkeypatch.setenv("HOME", str(tmp_path))
    target = f"{memory}/out/result.{suffix}"
    result = run(str(write_jsonl(ROWS)), target, tmp_path)
    assert result.path == target
    assert [file.path for file in list_remote(f"{memory}/out").files] == [target]
    again = run(target, tmp_path / "back.jsonl", tmp_path)
    assert again.rows_out == 200
    assert exported(tmp_path / "back.jsonl") == ROWS


def test_shards_at_urls_replace_older_ones(memory, tmp_path, monkeypatch, write_jsonl):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = str(write_jsonl(ROWS))
    run(source, f"{memory}/run[1]/out.jsonl", tmp_path, export_shard_size=500)
    result = run(source, f"{memory}/run[1]/out.jsonl", tmp_path, export_shard_size=3000)
    names = [file.path for file in list_remote(memory).files]
    assert 1 < len(names) < 4
    assert [file.path for file in list_remote(result.path).files] == names
    assert [json.loads(line) for name in names for line in get(name).splitlines()] == ROWS


def test_a_finished_output_is_taken_until_a_file_changes(memory, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(f"{memory}/a.jsonl", LINES)
    target = f"{memory}/out.jsonl"
    assert not run(f"{memory}/a.jsonl", target, tmp_path).cached
    assert run(f"{memory}/a.jsonl", target, tmp_path).cached
    put(f"{memory}/a.jsonl", LINES)
    assert not run(f"{memory}/a.jsonl", target, tmp_path).cached
    put(target, b"something else\n")
    assert not run(f"{memory}/a.jsonl", target, tmp_path).cached


def test_a_file_arrives_whole_where_stores_show_halves(memory, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(LINES)
    monkeypatch.setattr("raysandbox.recipe.remote._WHOLE_OBJECTS", ())
    upload(tmp_path / "a", f"{memory}/folder/a.jsonl")
    assert [file.path for file in list_remote(f"{memory}/folder").files] == [f"{memory}/folder/a.jsonl"]
    assert get(f"{memory}/folder/a.jsonl") == LINES


def test_stamps_change_with_the_content(memory):
    put(f"{memory}/a.jsonl", LINES)
    before = remote_stamps(f"{memory}/a.jsonl")
    assert remote_stamps(f"{memory}/a.jsonl") == before
    put(f"{memory}/a.jsonl", LINES)
    assert remote_stamps(f"{memory}/a.jsonl") != before


@pytest.mark.parametrize(
    ("url", "message"), [("nosuch://x/a.jsonl", "Protocol not known"), ("s3://bucket/a.jsonl", "Install s3fs")]
)
def test_protocols_that_are_not_there(monkeypatch, url, message):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ConfigError, match=message) as caught:
        find_files(url, frozenset())
    assert "\n" not in str(caught.value)


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(JobFailed, match="cannot be written"):
        upload(tmp_path / "a", "https://127.0.0.1:1/a.jsonl")


def test_a_web_server_is_no_place_for_output():
    problems = recipe_problems({"export_path": "https://x/y.jsonl"})
    assert [problem.path for problem in problems if problem.severity == "error"] == [("export_path",)]
