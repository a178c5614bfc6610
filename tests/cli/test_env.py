"""`raysandbox env`: what it prints and how it ends; the building itself is tested beside the builder."""

import json

import pytest

from raysandbox.cli.main import main
from raysandbox.core.errors import UserError
from raysandbox.provision import environment_builder
from raysandbox.provision.environments import MANIFEST, Environment, driver_ray, pins_of, source_digest


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path))
    return tmp_path


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def built(root, name, **more):
    path = root / ".builds" / f"{name}-1"
    (path / "bin").mkdir(parents=True)
    (path / "bin/python").touch()
    (path / "package").mkdir()
    (path / "package/raysandbox").symlink_to(environment_builder.package_folder())
    manifest = {"python": "3.11.7", "ray": driver_ray(), "bytes": 2e9, "seconds": 60, "pins": pins_of("vbench").digest}
    (path / MANIFEST).write_text(json.dumps({**manifest, **more}))
    (root / name).symlink_to(path)
    return Environment(name, root / name, {**manifest, **more})


def test_list_says_what_is_there(root, capsys):
    built(root, "vbench", ray="1.0")
    (root / "lost").symlink_to(root / "nowhere")
    status, out, _ = ended(capsys, "env", "list")
    assert status == 0
    found = " ".join(out.split())
    assert (
        f"│ vbench │ unusable │ it holds ray 1.0, this environment {driver_ray()}: raysandbox env create vbench"
        in found
    )
    assert "2.0 GB" in found
    assert "│ vllm │ absent │ vLLM" in found
    assert "│ lost │ broken" in found
    assert str(root) in found


def test_list_names_the_variant_to_rebuild(root, capsys):
    built(root, "vbench", ray="1.0", variant="detectron2")
    found = " ".join(ended(capsys, "env", "list")[1].split())
    assert ": raysandbox env create vbench --with-detectron2 │" in found


def test_list_names_the_checkout(root, capsys, tmp_path_factory):
    source = tmp_path_factory.mktemp("EasyAnimate")
    (source / "requirements.txt").touch()
    pins = pins_of("easyanimate")
    described = {"path": str(source), "commit": None, "changed": None, "requirements": source_digest(source, pins)}
    built(root, "easyanimate", source=described, pins=pins.digest)
    assert f"│ easyanimate │ ok │ for {source}, Python 3.11.7" in " ".join(ended(capsys, "env", "list")[1].split())


def test_list_says_that_a_checkout_is_needed(root, capsys):
    found = " ".join(ended(capsys, "env", "list")[1].split())
    assert "raysandbox env create easyanimate --source CHECKOUT │" in found


def test_create_keeps_a_variant_that_can_be_used(root, capsys):
    built(root, "vbench", variant="detectron2", pins=pins_of("vbench", "detectron2").digest)
    status, out, _ = ended(capsys, "env", "create", "vbench")
    assert status == 0
    assert "made with detectron2, and stays; --recreate builds it without" in " ".join(out.split())


@pytest.mark.parametrize(("more", "state"), [({}, "ok"), ({"pins": "x"}, "old"), ({"variant": "detectron2"}, "old")])
def test_list_tells_old_ones(root, capsys, more, state):
    built(root, "vbench", **more)
    _, out, _ = ended(capsys, "env", "list")
    assert f"│ vbench │ {state}" in " ".join(out.split())


def test_create_hands_its_options_on(root, capsys, monkeypatch):
    asked = {}

    def create(name, *, view, **options):
        asked.update(options, name=name)
        view.step("[1/2] a step")
        view.line("Collecting [x]")
        return built(root, name)

    monkeypatch.setattr(environment_builder, "create", create)
    status, out, _ = ended(capsys, "env", "create", "vbench", "--with-detectron2", "--python", "py", "--recreate")
    assert status == 0
    assert asked == {"name": "vbench", "variant": "detectron2", "source": None, "python": "py", "recreate": True}
    assert "[1/2] a step" in out
    assert "2.0 GB, built in 60 s" in out


def test_remove(root, capsys):
    built(root, "vbench")
    assert ended(capsys, "env", "remove", "vbench")[:2] == (0, f"removed {root}/vbench\n")
    assert ended(capsys, "env", "remove", "vbench")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["create", "easyanimate"],
            1,
            "is made for a checkout that you have: raysandbox env create easyanimate --source",
        ),
        (["create", "vllm", "--source", "."], 1, "error: --source: the environment 'vllm' is made from packages alone"),
        (["create", "vbnch"], 2, "did you mean 'vbench'?"),
        (["create", "vllm", "--with-detectron2"], 2, "environment 'vllm' has no variant 'detectron2'"),
        (["remove", "vbench"], 1, "error: there is no environment 'vbench'"),
        (["crate"], 2, "unknown verb 'crate'; did you mean 'create'?"),
    ],
)
def test_errors(root, capsys, arguments, status, message):
    code, _, err = ended(capsys, "env", *arguments)
    assert code == status
    assert message in err


def test_a_failed_build_is_one_message(root, capsys, monkeypatch):
    def create(*_, **__):
        raise UserError("the environment 'vbench' was not built: pip ended with status 1:\nlast line")

    monkeypatch.setattr(environment_builder, "create", create)
    status, _, err = ended(capsys, "env", "create", "vbench")
    assert status == 1
    assert err.startswith("error: the environment 'vbench' was not built")
    assert "Traceback" not in err
