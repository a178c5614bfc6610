"""What whoever writes the data must not reach: programs, the network, files outside."""

import http.server
import os
import stat
import threading
import zipfile
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.recipe.api import process


@pytest.fixture
def server():
    """Paths that were asked for, of a server on this machine; its address."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield asked, f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join(5)


def rows_through(operator, key, paths):
    """The rows that a media operator could not read."""
    recipe = {"process": [{operator: {}}], f"{key}_key": f"{key}s", "max_bad_rows": 1.0}
    return process(recipe, rows=[{"text": "", f"{key}s": [path]} for path in paths])


def test_addresses_and_playlists_ask_no_network(workspace, server):
    asked, address = server
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/hls.ts\n#EXT-X-ENDLIST\n"
    Path("a.mp4").write_text(playlist)
    Path("b.mp4").write_text(f"ffconcat version 1.0\nfile '{address}/concat.mp4'\n")
    paths = [f"{address}/direct.mp4", os.path.abspath("a.mp4"), os.path.abspath("b.mp4"), f"concat:{address}/x.mp4"]
    for path in paths:
        with pytest.raises(UserError):
            process(
                {"process": [{"video_duration_filter": {}}]},
                rows=[{"text": "<__dj__video>", "videos": [path]}],
            )
    assert asked == []


def test_the_decoder_itself_opens_local_files_only(server):
    from raysandbox.ops.media.decoding import UNREADABLE, audio_info, opened

    asked, address = server
    with pytest.raises(UNREADABLE), opened(f"{address}/direct.mp4"):
        pass
    with pytest.raises(UNREADABLE):
        audio_info(f"{address}/direct.mp4")
    assert asked == []


def test_postscript_is_not_run(workspace, monkeypatch):
    from raysandbox.ops.media.decoder import Fault
    from raysandbox.ops.media.pictures import info, load

    mark, program = workspace / "mark", workspace / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: > {mark}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    header = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    Path("picture.jpg").write_text(header + "showpage\n")
    for read in (load, info):
        found = read("picture.jpg")
        assert isinstance(found, Fault)
        assert "PostScript" in found.reason
    assert not mark.exists()


@pytest.mark.parametrize(
    ("operator", "kind"),
    [("video_duration_filter", "video"), ("image_size_filter", "image"), ("audio_duration_filter", "audio")],
)
def test_pipes_are_not_waited_for(workspace, monkeypatch, operator, kind):
    """A pipe that nobody writes to would cost the whole `row_timeout_s` for each row, or count as an empty file."""
    from raysandbox.ops.media.decoder import Decoder

    monkeypatch.setattr(Decoder, "answers", lambda self, jobs, timeout_s: iter(["nobody should ask"] * len(jobs)))
    os.mkfifo("pipe")
    rows = [{"text": f"<__dj__{kind}>", f"{kind}s": [os.path.abspath("pipe")]}]
    with pytest.raises(UserError, match="pipe: is not a regular file"):
        process({"process": [{operator: {}}]}, rows=rows)


def test_archives_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    from raysandbox.provision import fetching

    monkeypatch.setattr(fetching, "_ALWAYS_TAKEN", 1 << 10)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/a", bytes(1 << 20))
    with pytest.raises(fetching._BadContentError, match="unpacked it would have 1,048,576 bytes, more than"):
        fetching._unpack(tmp_path / "bomb.zip", tmp_path / "target")
    with pytest.raises(fetching._BadContentError, match="unpacked it would have"):
        fetching._extract(tmp_path / "bomb.zip", "model/a", tmp_path / "a")
    assert not list(tmp_path.rglob("target/**/a"))
    monkeypatch.undo()
    fetching._unpack(tmp_path / "bomb.zip", tmp_path / "target")
    assert (tmp_path / "target/a").stat().st_size == 1 << 20


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "model/../../outside.txt"])
def test_archives_do_not_write_outside(tmp_path, name):
    from raysandbox.provision.fetching import _BadContentError, _unpack

    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(_BadContentError, match="leads outside"):
        _unpack(tmp_path / "weights.zip", tmp_path / "in/target")
    assert not list(tmp_path.rglob("outside.txt"))


def test_links_in_archives_become_plain_files(tmp_path):
    from raysandbox.provision.fetching import _unpack

    link = zipfile.ZipInfo("model/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    _unpack(tmp_path / "weights.zip", tmp_path / "target")
    (found,) = (tmp_path / "target").rglob("link")
    assert not found.is_symlink()
    assert found.read_text() == "/etc/passwd"


def test_names_of_jobs_stay_inside_of_the_work_dir(workspace):
    """A tag is part of the names of logs and folders."""
    from typer.testing import CliRunner

    from raysandbox.cli.main import app

    Path("rows.jsonl").write_text('{"text": "hello"}\n')
    Path("run.yaml").write_text(
        "project_name: p\nexperiment_name: ../../e\nwork_dir: ./out/run\n"
        "execution_job_configs:\n  - hook: ProcessDataHook\n    meta_name: ../../../outside\n"
        "    dj_configs: {dataset_path: rows.jsonl, export_path: out/run/x.jsonl,\n"
        "                 process: [{text_length_filter: {}}]}\n"
    )
    CliRunner().invoke(app, ["run", "run.yaml"])
    assert sorted(path.name for path in workspace.iterdir()) == ["out", "rows.jsonl", "run.yaml"]
    assert [path.name for path in (workspace / "out").iterdir()] in ([], ["run"])
    assert not list(workspace.parent.glob("outside*"))


@pytest.mark.parametrize("name", ["../../etc", "..", "a/../../b"])
def test_names_of_environments_and_weights_are_names(name):
    from raysandbox.provision.environment_builder import create, delete

    for function in (create, delete):
        with pytest.raises(UserError, match="unknown environment"):
            function(name)


@pytest.mark.parametrize("name", ["../../etc/x", "org/../../x"])
def test_names_of_models_do_not_lead_out_of_the_hubs_cache(name):
    from raysandbox.executors._video.models.layout import local_folder
    from raysandbox.ops.pretrained import _in_hub_cache

    assert local_folder(name) is None
    assert _in_hub_cache(name).parent.name == "hub"
