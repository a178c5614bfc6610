"""Model files from servers to their places."""

import contextlib
import errno
import fcntl
import hashlib
import io
import random
import zipfile

import pytest

from raysandbox.core.errors import UserError
from raysandbox.provision import fetching
from raysandbox.provision.fetching import Fetcher, mirrors_of_environment
from raysandbox.provision.weights import WeightFile
from tests.provision.file_server import serving

DATA = b"weights " * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def files():
    with serving() as files:
        yield files


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "place"))
    monkeypatch.delenv(fetching.MIRROR_VARIABLE, raising=False)


def weight(**more):
    return WeightFile(**{"component": "comp", "name": "sub/model a.pt", "parts": ("p",), "root": "vbench", **more})


def zipped(**content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in content.items():
            archive.writestr(name.replace("__", "/"), text)
    return stream.getvalue()


def damaged(how):
    """An archive of `models/model.pt` in which one place is wrong."""
    method = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.get(how, zipfile.ZIP_DEFLATED)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("models/model.pt", random.Random(0).randbytes(5000))
    data = bytearray(stream.getvalue())
    first, directory = 30 + len("models/model.pt"), data.rindex(b"PK\x01\x02")
    if how in ("deflate", "bzip2", "lzma"):
        data[first : first + 40] = b"\xff" * 40
    elif how == "ends early":
        data[directory + 20 : directory + 24] = (2500).to_bytes(4, "little")  # its size, compressed
    elif how == "offset":
        data[data.rindex(b"PK\x05\x06") + 16] += 1  # of the directory: the member's becomes negative
    else:
        place, value = {"version": (6, 84), "method": (10, 77), "encrypted": (8, 1)}[how]
        data[directory + place] = value
    return bytes(data)


def left(file):
    return [path.name for path in file.target().parent.iterdir()]


def test_a_file_comes_whole_or_not_at_all(files):
    file = weight(sha256=SHA256, size=len(DATA), urls=(f"{files.url}/m.pt",))
    files.content["/m.pt"], files.cuts = DATA, [1000, 2000]
    assert Fetcher(pause_s=0).fetch(file) == file.target()
    assert file.verify().state == "ok"
    assert left(file) == ["model a.pt"]
    assert len(files.requests) == 3


def test_wrong_content_is_refused_and_nothing_is_left(files):
    file = weight(sha256=SHA256, urls=(f"{files.url}/m.pt",))
    files.content["/m.pt"] = DATA[::-1]
    with pytest.raises(UserError, match=f"sub/model a.pt: .*m.pt: sha256 [0-9a-f]* instead of {SHA256}"):
        Fetcher(pause_s=0).fetch(file)
    assert left(file) == []


@pytest.mark.parametrize("last", ["move", "forget"])
def test_no_other_process_gets_the_part_before_it_is_placed(files, monkeypatch, last):
    file = weight(sha256=SHA256, urls=(f"{files.url}/m.pt",))
    files.content["/m.pt"] = DATA if last == "move" else DATA[::-1]
    seen = []

    def spied(step):
        def spy(*arguments):
            with (file.target().parent / ".model a.pt.part").open("ab") as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(step.__name__)
            return step(*arguments)

        return spy

    for name in ("_check", last):
        monkeypatch.setattr(fetching, name, spied(getattr(fetching, name)))
    with contextlib.suppress(UserError):
        Fetcher(pause_s=0).fetch(file)
    assert seen == ["_check", last]


def test_a_page_in_place_of_the_file_is_refused(files):
    file = weight(urls=(f"{files.url}/m.pt", f"{files.url}/empty.pt"))
    files.content |= {"/m.pt": b"<!doctype html><p>quota exceeded", "/empty.pt": b""}
    with pytest.raises(UserError, match=r"a web page, not the file; .*empty.pt: 0 bytes"):
        Fetcher(pause_s=0).fetch(file)
    assert left(file) == []


def test_what_stood_there_stays_until_the_new_one_is_whole(files):
    file = weight(sha256=SHA256, urls=(f"{files.url}/m.pt",))
    file.target().parent.mkdir(parents=True)
    file.target().write_bytes(b"old")
    files.content["/m.pt"] = b"bad"
    with pytest.raises(UserError):
        Fetcher(pause_s=0).fetch(file)
    assert file.target().read_bytes() == b"old"
    files.content["/m.pt"] = DATA
    Fetcher(pause_s=0).fetch(file)
    assert file.target().read_bytes() == DATA


def test_mirrors_come_first_and_the_next_source_after_a_bad_one(files, tmp_path):
    file = weight(sha256=SHA256, urls=(f"{files.url}/m.pt",))
    files.content |= {"/m.pt": DATA, "/bad/comp/sub/model%20a.pt": b"bad"}
    Fetcher([f"{files.url}/none", f"{files.url}/bad/"], pause_s=0).fetch(file)
    assert [path for path, _ in files.requests] == [
        "/none/comp/sub/model%20a.pt",
        "/bad/comp/sub/model%20a.pt",
        "/m.pt",
    ]
    file.target().unlink()
    stick = tmp_path / "stick/comp/sub/model a.pt"
    stick.parent.mkdir(parents=True)
    stick.write_bytes(DATA)
    Fetcher([(tmp_path / "stick").as_uri()], pause_s=0).fetch(file)
    assert file.verify().state == "ok"
    assert len(files.requests) == 3


def test_a_server_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    def brought(self):
        asked.append(self.url)
        error = fetching.DownloadError("no answer")
        error.unreachable = True
        raise error

    monkeypatch.setattr(fetching.Download, "brought", brought)
    fetcher = Fetcher(pause_s=0)
    for name in ("a", "b"):
        with pytest.raises(UserError, match=r"no answer|host does not answer"):
            fetcher.fetch(weight(name=name, urls=(f"https://host/{name}",)))
    assert asked == ["https://host/a"]


def test_a_member_of_an_archive(files):
    file = weight(sha256=SHA256, urls=(f"{files.url}/models.zip",), member="models/model.pt")
    files.content["/models.zip"] = zipped(models__model=b"")
    with pytest.raises(UserError, match=r"no archive that holds models/model\.pt"):
        Fetcher(pause_s=0).fetch(file)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("models/model.pt", DATA)
        archive.writestr("models/other.pt", b"x")
    files.content["/models.zip"] = stream.getvalue()
    Fetcher(pause_s=0).fetch(file)
    assert file.target().read_bytes() == DATA
    assert left(file) == ["model a.pt"]
    file.target().unlink()
    files.content["/comp/sub/model%20a.pt"] = DATA  # a mirror holds the file itself
    Fetcher([files.url], pause_s=0).fetch(file)
    assert file.verify().state == "ok"


DAMAGES = ["deflate", "bzip2", "lzma", "ends early", "offset", "version", "method", "encrypted"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", [{"member": "models/model.pt"}, {"holds": ("model.pt",)}])
def test_after_a_damaged_archive_the_next_source_is_tried(files, how, kind):
    bad = weight(urls=(f"{files.url}/bad.zip",), **kind)
    files.content |= {"/bad.zip": damaged(how), "/good.zip": zipped(**{"models__model.pt": DATA})}
    with pytest.raises(UserError, match=r"sub/model a.pt: http.*/bad\.zip: no archive.* \(.+\)"):
        Fetcher(pause_s=0).fetch(bad)
    assert left(bad) == []
    good = weight(urls=(f"{files.url}/bad.zip", f"{files.url}/good.zip"), **kind)
    Fetcher(pause_s=0).fetch(good)
    assert left(good) == ["model a.pt"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_is_itself_a_damaged_archive(files, how):
    file = weight(urls=(f"{files.url}/m.pt",))
    files.content["/m.pt"] = damaged(how)
    with pytest.raises(UserError, match=r"m\.pt: an archive .* damaged"):
        Fetcher(pause_s=0).fetch(file)
    assert left(file) == []


def test_a_full_disk_is_no_fault_of_the_archive(files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = weight(urls=(f"{files.url}/good.zip", f"{files.url}/good.zip"), member="models/model.pt")
    files.content["/good.zip"] = zipped(**{"models__model.pt": DATA})
    monkeypatch.setattr(fetching.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"cannot be written: .*No space left"):
        Fetcher(pause_s=0).fetch(file)
    assert len(files.requests) == 1


def test_a_folder_from_an_archive(files):
    file = weight(name="code", urls=(f"{files.url}/main.zip",), holds=("hubconf.py", "utils/a.py"))
    files.content["/main.zip"] = zipped(**{"repo-main__hubconf.py": "x"})
    with pytest.raises(UserError, match=r"the archive lacks utils/a\.py"):
        Fetcher(pause_s=0).fetch(file)
    assert left(file) == []
    files.content["/main.zip"] = zipped(**{"repo-main__hubconf.py": "x", "repo-main__utils__a.py": "y"})
    Fetcher(pause_s=0).fetch(file)
    assert (file.target() / "utils/a.py").read_text() == "y"
    assert file.state().good


@pytest.mark.parametrize("name", ["..__evil.py", "a__..__..__evil.py", "__evil.py"])
def test_an_archive_that_leads_outside_is_refused(files, tmp_path, name):
    file = weight(name="code", urls=(f"{files.url}/main.zip",), holds=("hubconf.py",))
    files.content["/main.zip"] = zipped(**{"hubconf.py": "x", name: "evil"})
    with pytest.raises(UserError, match="which leads outside"):
        Fetcher(pause_s=0).fetch(file)
    assert not list(tmp_path.rglob("evil.py"))


def test_a_place_that_cannot_be_written_is_named(files, tmp_path):
    file = weight(urls=(f"{files.url}/m.pt", f"{files.url}/m.pt"))
    (tmp_path / "place").write_text("a file")
    with pytest.raises(UserError, match=f"{file.target()} cannot be written: .*Not a directory"):
        Fetcher(pause_s=0).fetch(file)
    assert files.requests == []


def test_mirrors_of_the_environment(monkeypatch):
    assert mirrors_of_environment() == []
    monkeypatch.setenv(fetching.MIRROR_VARIABLE, "http://a/x, http://b")
    assert mirrors_of_environment() == ["http://a/x", "http://b"]
