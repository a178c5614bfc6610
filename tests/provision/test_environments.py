"""Isolated environments: built whole or not at all, found, refused when they do not fit."""

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import raysandbox
from raysandbox.core.errors import UnknownNameError, UserError
from raysandbox.provision import environment_builder as builder
from raysandbox.provision import environment_source
from raysandbox.provision import environments as module
from raysandbox.provision.environment_builder import BuildView, create, delete
from raysandbox.provision.environment_source import torch_of
from raysandbox.provision.environments import driver_ray, find, interpreter, known, pins_of

PINS = """
summary = "a test"
check = "import tiny; assert tiny.VALUE == {value}"
[[step]]
options = ["--no-index", "--no-deps", "--find-links", "{wheels}"]
requirements = ["ray=={{ray}}", "{package}"]
"""


def wheel(folder, name, version, code=""):
    """A package of one module, written by hand: building one takes longer."""
    info = f"{name}-{version}.dist-info"
    entries = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    entries[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*entries, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in entries.items():
            archive.writestr(path, text)


@pytest.fixture
def pins(tmp_path, monkeypatch):
    """A function that sets the pins of the environment `tiny`."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "ray", driver_ray())
    wheel(wheels, "tiny", "1", "VALUE = 1")
    wheel(wheels, "tiny", "2", "VALUE = 2")

    def write(package="tiny==1", value=1):
        (tmp_path / "tiny.toml").write_text(PINS.format(wheels=wheels, package=package, value=value))
        pins_of.cache_clear()

    monkeypatch.setattr(module, "_PINS", tmp_path)
    write()
    yield write
    pins_of.cache_clear()


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments"


@pytest.fixture
def quick(monkeypatch):
    """Virtual environments without pip, which takes most of the time; `pip` does nothing."""
    monkeypatch.setattr(builder._Build, "_pip", lambda self, arguments: None)
    monkeypatch.setattr(builder._Build, "_call", _call_without_pip)


def _call_without_pip(self, arguments, what):
    if what == "venv":
        subprocess.run([*arguments[:3], "--without-pip", arguments[3]], check=True)
        folder = self.path / f"lib/python{'.'.join(platform.python_version_tuple()[:2])}/site-packages"
        (folder / f"ray-{driver_ray()}.dist-info").mkdir()
        (folder / f"ray-{driver_ray()}.dist-info/METADATA").write_text(f"Name: ray\nVersion: {driver_ray()}\n")


@pytest.fixture
def drivers_pip(monkeypatch):
    """Real builds with this environment's pip: giving each a pip of its own takes seconds."""
    call = builder._Build._call

    def quicker(self, arguments, what):
        if what == "venv":
            arguments = [*arguments[:3], "--without-pip", *arguments[3:]]
        elif what == "pip":
            arguments = [sys.executable, "-m", "pip", "--python", *arguments[:1], *arguments[3:]]
        call(self, arguments, what)

    monkeypatch.setattr(builder._Build, "_call", quicker)


class Seen(BuildView):
    def __init__(self):
        self.steps, self.lines = [], []

    def step(self, text):
        self.steps.append(text)

    def line(self, text):
        self.lines.append(text)


def test_shipped_pins_can_be_read():
    assert set(known()) == {"easyanimate", "vbench", "vllm"}
    for name, variant in [("vbench", ""), ("vbench", "detectron2"), ("vllm", ""), ("easyanimate", "")]:
        pins = pins_of(name, variant)
        compile(pins.check, name, "exec")
        asked = [item for step in pins.steps for item in step.get("requirements", ())]
        assert any(item.startswith("ray[") and item.endswith("=={ray}") for item in asked)
        assert all(set(step) <= {"requirements", "options", "torch", "torch_of"} for step in pins.steps)


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("vbnch", "", "unknown environment 'vbnch'; did you mean 'vbench'"),
        ("easyanimat", "", "did you mean 'easyanimate'"),
        ("vllm", "detectron2", "'vllm' has no variant 'detectron2'"),
        ("vbench-detectron2", "", "unknown environment"),
        ("../x", "", "unknown environment"),
    ],
)
def test_unknown_names(name, variant, message):
    with pytest.raises(UnknownNameError, match=message):
        pins_of(name, variant)


def test_a_whole_build_a_second_call_and_other_pins(pins, root):
    view = Seen()
    made = create("tiny", view=view)
    assert made.path == root / "tiny"
    assert made.manifest["packages"]["tiny"] == "1"
    assert made.manifest["ray"] == driver_ray()
    assert made.manifest["bytes"] > 1_000_000
    assert view.steps[0] == "[1/3] a virtual environment"
    assert any("Successfully installed" in line for line in view.lines)
    assert interpreter("tiny") == str(root / "tiny/bin/python")

    # This package is importable there, and nothing else of this environment.
    code = "import raysandbox.core.errors as e, importlib.util as u; print(e.__file__, u.find_spec('pydantic'))"
    shown = subprocess.run([interpreter("tiny"), "-c", code], capture_output=True, text=True, check=True, cwd="/")
    path, pydantic = shown.stdout.split()
    assert Path(path).samefile(Path(raysandbox.__file__).parent / "core/errors.py")
    assert pydantic == "None"

    view = Seen()
    assert create("tiny", view=view).manifest == made.manifest
    assert view.steps == [f"{root}/tiny is there already"]


def test_a_build_that_fails_leaves_the_earlier_one(pins, root, drivers_pip):
    create("tiny")
    pins("tiny==3")
    with pytest.raises(UserError, match=r"'tiny' was not built: pip ended with status 1;(?s:.*)tiny==3(?s:.*)tiny.log"):
        create("tiny")
    assert [path.resolve() for path in (root / ".builds").iterdir()] == [(root / "tiny").resolve()]
    assert find("tiny").differences() == "it was built from other pins"
    pins("tiny==2", value=2)
    assert create("tiny").manifest["packages"]["tiny"] == "2"
    assert len(list((root / ".builds").iterdir())) == 1


def test_the_check_decides(pins, root, drivers_pip):
    pins(value=7)
    with pytest.raises(UserError, match=r"the check ended with status 1;(?s:.*)AssertionError"):
        create("tiny")
    assert find("tiny") is None
    assert list((root / ".builds").iterdir()) == []
    with pytest.raises(UserError, match=r"'tiny' is not built on this machine .*: raysandbox env create tiny"):
        interpreter("tiny")


def test_what_a_killed_build_left_is_swept(pins, root, quick):
    (root / ".builds/tiny-dead").mkdir(parents=True)
    create("tiny")
    assert [path.name for path in (root / ".builds").iterdir()] == [(root / "tiny").resolve().name]
    first = (root / "tiny").resolve()
    create("tiny", recreate=True)
    assert not first.exists()
    assert delete("tiny") == root / "tiny"
    assert not list((root / ".builds").iterdir())
    with pytest.raises(UserError, match="there is no environment 'tiny'"):
        delete("tiny")


def test_only_environments_are_removed(pins, root, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    root.mkdir()
    with pytest.raises(UnknownNameError, match=r"unknown environment '\.\./link'"):
        delete("../link")
    assert (tmp_path / "link").exists()


def test_two_builds_at_once(pins, root):
    root.mkdir()
    with (root / ".tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process works on the environment 'tiny'"):
            create("tiny")


def test_a_killed_build_ends_its_programs_and_the_next_one_succeeds(pins, root, drivers_pip, tmp_path):
    mark = tmp_path / "pid"
    pins(value=f"1; import os, time; open('{mark}', 'w').write(str(os.getpid())); time.sleep(60)")
    code = (
        "import sys; from pathlib import Path\n"
        "from raysandbox.provision import environment_builder as b, environments as e\n"
        f"e._PINS = Path({str(tmp_path)!r})\n"
        "call, b._Build._pip = b._Build._call, lambda *_: None\n"
        "b._Build._call = lambda s, a, w: call(s, [*a, '--without-pip'] if w == 'venv' else a, w)\n"
        "b.create('tiny')"
    )
    (tmp_path / "tiny.toml").write_text(
        (tmp_path / "tiny.toml").read_text().replace("import tiny; assert tiny.VALUE", "0")
    )
    build = subprocess.Popen([sys.executable, "-c", code], cwd=Path(raysandbox.__file__).parents[1])
    while not (mark.exists() and mark.read_text()):
        assert build.poll() is None
        time.sleep(0.05)
    build.kill()
    build.wait()
    pins()
    while create_or_none() is None:  # its programs hold the lock until the guard has ended them
        time.sleep(0.05)
    assert not alive(int(mark.read_text()))
    assert len(list((root / ".builds").iterdir())) == 1


def alive(pid):
    try:  # where nobody waits for orphans they stay as zombies
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def create_or_none():
    try:
        return create("tiny")
    except UserError:  # the killed program is not gone yet
        return None


def test_a_place_that_cannot_be_written_is_named(pins, root):
    root.write_text("a file")
    with pytest.raises(UserError, match=r"File exists.*set RAYSANDBOX_ENVIRONMENTS"):
        create("tiny")


def test_a_folder_of_the_users_is_not_touched(pins, root, quick):
    (root / "tiny").mkdir(parents=True)
    with pytest.raises(UserError, match="is no environment of raysandbox's"):
        create("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ray": "1.0"}, "it holds ray 1.0, this environment"),
        ({"python": "3.8.1"}, "it holds Python 3.8, this environment"),
    ],
)
def test_what_does_not_fit_is_refused(pins, root, quick, change, message):
    made = create("tiny")
    (made.path / module.MANIFEST).write_text(json.dumps({**made.manifest, **change}))
    with pytest.raises(UserError, match=rf"'tiny' cannot be used: {message}.*rebuild it: raysandbox env create tiny"):
        interpreter("tiny")
    assert create("tiny").manifest["ray"] == driver_ray()  # without --recreate
    assert interpreter("tiny")


def test_another_checkout_is_said_and_mended(pins, root, quick, caplog, tmp_path):
    made = create("tiny")
    other = tmp_path / "other"
    other.mkdir()
    (other / "__init__.py").touch()
    link = module.link_of(made.path)
    link.unlink()
    link.symlink_to(other)
    assert interpreter("tiny")
    assert f"it uses the raysandbox of {other}" in caplog.text
    create("tiny")
    assert link.resolve() == module.package_folder()
    link.unlink()
    with pytest.raises(UserError, match="the raysandbox that it points to is gone"):
        interpreter("tiny")


def test_variants_replace_each_other(pins, root, quick, tmp_path):
    (tmp_path / "tiny-more.toml").write_text((tmp_path / "tiny.toml").read_text())
    assert create("tiny").variant == ""
    assert create("tiny", variant="more").variant == "more"
    assert find("tiny").variant == "more"
    assert known() == {"tiny": "a test"}


@pytest.fixture
def variant(pins, root, quick, tmp_path):
    """The environment `tiny`, built in its variant `more`."""
    (tmp_path / "tiny-more.toml").write_text((tmp_path / "tiny.toml").read_text())
    return create("tiny", variant="more")


def test_a_variant_stays_until_another_is_asked_for(variant, tmp_path):
    view = Seen()
    assert create("tiny", view=view) == variant
    assert view.steps == [f"{variant.path} is there already, made with more, and stays; --recreate builds it without"]
    with (tmp_path / "tiny-more.toml").open("a") as file:
        file.write('[[step]]\nrequirements = ["another"]\n')
    pins_of.cache_clear()
    view = Seen()
    assert create("tiny", view=view) == variant
    assert "stays (it was built from other pins; renew it: raysandbox env create tiny --with-more)" in view.steps[0]
    view = Seen()
    assert create("tiny", recreate=True, view=view).variant == ""
    assert view.steps[0] == f"{variant.path}, made with more, is replaced by one without"


def test_a_variant_that_cannot_be_used_is_replaced_with_a_word(variant):
    (variant.path / module.MANIFEST).write_text(json.dumps({**variant.manifest, "ray": "1.0"}))
    with pytest.raises(UserError, match=r"rebuild it: raysandbox env create tiny --with-more$"):
        interpreter("tiny")
    view = Seen()
    assert create("tiny", view=view).variant == ""
    assert "made with more, is replaced by one without" in view.steps[0]


def test_the_advice_to_renew_names_the_variant(variant, caplog):
    (variant.path / module.MANIFEST).write_text(json.dumps({**variant.manifest, "pins": "x"}))
    assert interpreter("tiny")
    assert "renew it with `raysandbox env create tiny --with-more`" in caplog.text


def test_a_path_is_an_interpreter(tmp_path):
    assert interpreter(sys.executable) == os.path.abspath(sys.executable)
    with pytest.raises(UserError, match="there is no Python interpreter at /no/python"):
        interpreter("/no/python")


@pytest.mark.parametrize(
    ("text", "message"), [("echo 3.8", "is Python 3.8; Ray's workers need the driver's"), (None, "No such file")]
)
def test_another_python_is_refused(pins, root, tmp_path, text, message):
    python = tmp_path / "python"
    if text:
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)
    with pytest.raises(UserError, match=message):
        create("tiny", python=str(python))


@pytest.mark.parametrize(
    ("driver", "works_at", "tried"),
    [
        (True, 0, ["torch==9"]),
        (False, 0, ["torch==9+cpu"]),
        (False, 1, ["torch==9+cpu", "index torch==9+cpu"]),
        (False, 2, ["torch==9+cpu", "index torch==9+cpu", "torch==9"]),
        (False, 3, None),
    ],
)
def test_torch_is_the_cpu_build_where_no_driver_is(monkeypatch, driver, works_at, tried):
    calls = []

    def pip(self, arguments):
        calls.append(f"{'index ' if '--index-url' in arguments else ''}{arguments[-1]}")
        if len(calls) <= works_at:
            raise UserError("no such version")

    monkeypatch.setattr(builder._Build, "_pip", pip)
    monkeypatch.setattr(builder, "_has_nvidia_driver", lambda: driver)
    build = builder._Build(pins_of("vbench"), Path("x"), sys.executable, sys.stdout, BuildView(), 0)
    if tried is None:
        with pytest.raises(UserError, match="no such version"):
            build._torch("9")
    else:
        build._torch("9")
        assert calls == tried


def test_the_driver_does_not_shine_through(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_TARGET", "/somewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    found = builder._clean_environment()
    assert "PYTHONPATH" not in found
    assert "PIP_TARGET" not in found
    assert found["PIP_INDEX_URL"] == "https://mirror/simple"


SOURCE_PINS = """
summary = "a test"
check = "import tiny"
[source]
files = ["requirements.txt", "train.py"]
hint = "a hint"
[[step]]
torch_of = "requirements.txt"
[[step]]
options = ["--no-index", "--no-deps", "--find-links", "{wheels}"]
requirements = ["-r", "{{source}}/requirements.txt", "ray=={{ray}}"]
"""


@pytest.fixture
def checkout(pins, root, tmp_path):
    """A checkout that asks for tiny, and pins that are made for it."""
    (tmp_path / "tiny.toml").write_text(SOURCE_PINS.format(wheels=tmp_path / "wheels"))
    pins_of.cache_clear()
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "requirements.txt").write_text("tiny==1\n")
    (folder / "train.py").touch()
    return folder


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_environment_for_a_checkout(checkout, drivers_pip, caplog):
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    (checkout / "train.py").write_text("print()")
    made = create("tiny", source=str(checkout))
    assert made.manifest["packages"]["tiny"] == "1"
    assert made.source == checkout
    assert made.manifest["source"]["commit"] == git(checkout, "rev-parse", "HEAD")
    assert made.manifest["source"]["changed"] is True
    assert made.command == f"raysandbox env create tiny --source '{checkout}'"
    view = Seen()
    assert create("tiny", view=view).manifest == made.manifest  # the checkout is known
    assert view.steps == [f"{made.path} is there already"]
    (checkout / "requirements.txt").write_text("tiny==2\n")
    assert interpreter("tiny")
    assert f"what {checkout} requires has changed; renew it with `{made.command}`" in caplog.text
    assert create("tiny").manifest["packages"]["tiny"] == "2"
    (checkout / "requirements.txt").unlink()
    assert "requires has changed" in find("tiny").differences()


def test_a_checkout_without_git_and_another_one(checkout, quick, tmp_path):
    made = create("tiny", source=str(checkout))
    assert made.manifest["source"]["commit"] is None
    other = tmp_path / "other"
    checkout.rename(other)
    assert find("tiny").differences() == f"its checkout {checkout} is gone"
    with pytest.raises(UserError, match=r"--source .*: there is no such folder"):
        create("tiny")
    assert create("tiny", source=str(other)).source == other


def test_checkouts_that_are_none(checkout, quick, tmp_path):
    with pytest.raises(UserError, match="raysandbox env create tiny --source CHECKOUT"):
        create("tiny")
    with pytest.raises(UserError, match=r"not built on this machine .*raysandbox env create tiny --source CHECKOUT"):
        interpreter("tiny")
    (checkout / "train.py").unlink()
    with pytest.raises(UserError, match=r"lacks train\.py: a hint"):
        create("tiny", source=str(checkout))
    with pytest.raises(UserError, match="there is no such folder"):
        create("tiny", source=str(tmp_path / "none"))


def test_a_source_where_none_is_needed(pins, root):
    with pytest.raises(UserError, match="'tiny' is made from packages alone"):
        create("tiny", source="x")


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("torch", "torch"),
        ("torch>=2.1.2", "torch>=2.1.2"),
        ("torch == 2.2.0  # the newest", "torch==2.2.0"),
        ("torchvision", ""),
        ("torch>=2; python_version>'3'", "torch>=2"),
    ],
)
def test_torch_of_a_requirements_file(tmp_path, line, asked):
    (tmp_path / "requirements.txt").write_text(f"timm\n{line}\n")
    assert torch_of(tmp_path / "requirements.txt") == asked


@pytest.mark.parametrize(
    ("driver", "own", "asked", "calls"),
    [
        (False, "2.13.0+cpu", "torch>=2", ["torch==2.13.0+cpu"]),
        (False, "1.0", "torch>=2", ["torch>=2"]),
        (False, "2.13.0", "torch", ["torch==2.13.0+cpu"]),
        (True, "2.13.0", "torch>=2", ["torch>=2"]),
        (False, "2.13.0", "torch==2.1", ["torch==2.1+cpu"]),
        (False, "2.13.0", "torch=?1", ["torch=?1"]),  # pip says what is wrong
        (False, None, "torch>=2", ["torch>=2"]),
        (False, "2.13.0", "", []),
    ],
)
def test_torch_as_a_checkout_asks_for_it(monkeypatch, driver, own, asked, calls):
    def version(name):
        if own is None:
            raise PackageNotFoundError(name)
        return own

    made = []
    monkeypatch.setattr(builder._Build, "_pip", lambda self, arguments: made.append(arguments[-1]))
    monkeypatch.setattr(builder, "_has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(environment_source, "version", version)
    build = builder._Build(pins_of("easyanimate"), Path("x"), sys.executable, sys.stdout, BuildView(), 0)
    build._torch_as(asked)
    assert made == calls


def test_digests_follow_what_is_asked_for(pins):
    first = pins_of("tiny").digest
    pins(value=5)  # another check: the same packages
    assert pins_of("tiny").digest == first
    pins("tiny==2")
    assert pins_of("tiny").digest != first
    assert len(first) == len(hashlib.sha256().hexdigest())
