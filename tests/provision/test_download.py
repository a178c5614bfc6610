"""Transfers: resumed, retried, refused."""

import fcntl
import json
import os
import socket

import pytest

from raysandbox.core.progress import Progress
from raysandbox.provision import download as module
from raysandbox.provision.download import Download, DownloadError, forget, move
from tests.provision.file_server import serving

BODY = bytes(range(256)) * 40
SIZE = 10_240


@pytest.fixture
def files():
    with serving() as files:
        files.content["/model.pt"] = BODY
        yield files


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)


def bring(url, part, size=SIZE, **more):
    with Download(url, part, size, Progress(), pause_s=0.001, timeout_s=5, **more).brought():
        return part.read_bytes()


def test_an_interrupted_transfer_goes_on_where_it_ended(files, tmp_path):
    files.cuts = [3000, 2500]
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY
    assert [wanted for _, wanted in files.requests] == [None, "bytes=3000-", "bytes=5500-"]


def test_a_later_call_goes_on_too(files, tmp_path):
    files.cuts = [4000, 0, 0]
    with pytest.raises(DownloadError, match=r"ended after 4000 of 10240 bytes \(2 tries\)"):
        bring(f"{files.url}/model.pt", tmp_path / "part", tries=2)
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY
    assert files.requests[-1][1] == "bytes=4000-"
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY  # killed before it was put in place


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": '"two"'}, {"tag": ""}, {"tag": 'W/"one"'}])
def test_other_content_is_not_appended(files, tmp_path, change):
    if change == {"tag": ""}:
        files.tag = ""  # nothing names the content: it cannot be continued
    files.cuts = [4000]
    with pytest.raises(DownloadError):
        bring(f"{files.url}/model.pt", tmp_path / "part", tries=1)
    for name, value in change.items():
        setattr(files, name, value)
    files.content["/model.pt"] = BODY[::-1]
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY[::-1]


def test_the_part_of_another_url_is_not_continued(files, tmp_path):
    (tmp_path / "part").write_bytes(b"x" * 100)
    (tmp_path / "part.json").write_text(json.dumps({"url": "http://other/", "validator": '"one"'}))
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY


def test_a_shorter_file_than_the_part_starts_anew(files, tmp_path):
    bring(f"{files.url}/model.pt", tmp_path / "part")
    files.content["/model.pt"] = BODY[:500]
    assert bring(f"{files.url}/model.pt", tmp_path / "part", size=None) == BODY[:500]


def test_busy_servers_are_asked_again(files, tmp_path):
    files.statuses = [503, 429, 500]
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY
    files.statuses = [503] * 4
    with pytest.raises(DownloadError, match=r"HTTP Error 503: .*\(4 tries\)") as caught:
        bring(f"{files.url}/model.pt", tmp_path / "other")
    assert not caught.value.unreachable


@pytest.mark.parametrize(
    ("path", "size", "message"),
    [
        ("/none.pt", None, "HTTP Error 404"),
        ("/model.pt", 9, "has 10240 bytes; 9 are expected"),
        ("/model.pt", None, "GB left"),
    ],
)
def test_what_no_second_try_mends_is_not_tried_again(files, tmp_path, monkeypatch, path, size, message):
    if "left" in message:
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DownloadError, match=message):
        bring(files.url + path, tmp_path / "part", size)
    assert len(files.requests) == 1


def test_no_server(tmp_path):
    with socket.socket() as taken:  # bound, not listening: refuses
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match=r"refused.*\(2 tries\)") as caught:
            bring(f"http://127.0.0.1:{taken.getsockname()[1]}/model.pt", tmp_path / "part")
    assert caught.value.unreachable
    assert list(tmp_path.iterdir()) == []


def test_schemes(files, tmp_path):
    (tmp_path / "stick.pt").write_bytes(BODY)
    assert bring((tmp_path / "stick.pt").as_uri(), tmp_path / "part") == BODY
    with pytest.raises(DownloadError, match="there is no such file"):
        bring((tmp_path / "none.pt").as_uri(), tmp_path / "part")
    with pytest.raises(DownloadError, match="only http, https and file"):
        bring("ftp://host/model.pt", tmp_path / "part")


def test_a_redirect_does_not_leave_https():
    import urllib.request

    request = urllib.request.Request("https://a/b")
    with pytest.raises(DownloadError, match="redirects to http://c/d, which is not https"):
        module._NoDowngrade().redirect_request(request, None, 302, "", {}, "http://c/d")
    assert module._NoDowngrade().redirect_request(request, None, 302, "", {}, "https://c/d").full_url == "https://c/d"


def test_two_processes_do_not_mix(files, tmp_path):
    with (tmp_path / "part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process fetches part"):
            bring(f"{files.url}/model.pt", tmp_path / "part")


def test_the_part_is_held_until_the_block_ends(files, tmp_path):
    with Download(f"{files.url}/model.pt", tmp_path / "part", SIZE, Progress()).brought():
        with pytest.raises(DownloadError, match="another process fetches part"):
            bring(f"{files.url}/model.pt", tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == BODY
    assert bring(f"{files.url}/model.pt", tmp_path / "part") == BODY


@pytest.mark.parametrize("renewed", [False, True])
def test_a_part_placed_before_it_was_locked_is_not_written_to(files, tmp_path, monkeypatch, renewed):
    part, target = tmp_path / "part", tmp_path / "model.pt"
    part.write_bytes(BODY)

    def late(*_):  # another process ends between opening and locking
        part.rename(target)
        if renewed:
            part.touch()

    monkeypatch.setattr(module.fcntl, "flock", late)
    with pytest.raises(DownloadError, match="another process fetched part just now"):
        bring(f"{files.url}/model.pt", part)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("end", [forget, lambda part: move(part, part.with_name("model.pt"))])
def test_the_notes_go_before_the_part(files, tmp_path, monkeypatch, end):
    """Where the part is gone another process may begin anew; nothing of it may be removed."""
    bring(f"{files.url}/model.pt", tmp_path / "part")
    remove, replace = module.remove, os.replace

    def removes(path):
        remove(path)
        assert (tmp_path / "part").exists() or not (tmp_path / "part.json").exists()

    def replaces(*paths):
        assert not (tmp_path / "part.json").exists()
        replace(*paths)

    monkeypatch.setattr(module, "remove", removes)
    monkeypatch.setattr(module.os, "replace", replaces)
    end(tmp_path / "part")
    assert not (tmp_path / "part").exists()
