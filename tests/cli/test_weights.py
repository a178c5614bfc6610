"""`raysandbox weights`, and how check and doctor speak of model files."""

import hashlib
import io
import subprocess
import sys
import zipfile

import pytest

from raysandbox.cli.main import main
from raysandbox.provision import fetching, weights
from tests.provision.file_server import serving

DATA = b"weights " * 50
MANIFEST = {
    "evaluator": {
        "root": "quality",
        "parts": ["one", "two", "none"],
        "files": [
            {"name": "one.pt", "parts": ["one"], "sha256": hashlib.sha256(DATA).hexdigest(), "licence": "MIT"},
            {"name": "two.pt", "parts": ["two"], "size": 400, "licence": "CC BY-NC 4.0", "note": "a note"},
        ],
    }
}


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(weights, "_manifest", lambda: MANIFEST)
    monkeypatch.delenv(fetching.MIRROR_VARIABLE, raising=False)
    with serving() as files:
        yield files


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def test_list(files, capsys):
    target = weights.files_of("evaluator")[0].target()
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA)
    status, out, _ = ended(capsys, "weights", "list")
    assert status == 0
    rows = [[cell.strip() for cell in line.split("│")[2:7]] for line in out.splitlines() if "evaluator" in line]
    assert rows == [
        ["one", "one.pt", "not known", "MIT", "here"],
        ["two", "two.pt", "0.0 MB", "CC BY-NC 4.0", "missing"],
    ]
    assert "two.pt" not in ended(capsys, "weights", "list", "evaluator", "--part", "one")[1]


def test_fetch_then_verify(files, capsys):
    files.content |= {"/m/evaluator/one.pt": DATA, "/m/evaluator/two.pt": DATA}
    status, out, _ = ended(capsys, "weights", "fetch", "evaluator", "--mirror", f"{files.url}/m")
    assert (status, len(files.requests)) == (0, 2)
    assert "two.pt (licence: CC BY-NC 4.0; no digest is known to compare with)" in out
    status, out, _ = ended(capsys, "weights", "fetch")
    assert (status, len(files.requests)) == (0, 2)
    assert out.startswith("here ")
    assert "2 model file(s) here, 0 bad" in ended(capsys, "weights", "verify", "evaluator")[1]


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty "), (DATA[:-1], "wrong size "), (b"<html>" + DATA[6:], "a web page")]
)
def test_verify_names_bad_files(files, capsys, content, said):
    target = weights.files_of("evaluator")[1].target()
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    status, out, _ = ended(capsys, "weights", "verify")
    assert status == 1
    assert said in out
    assert str(target) in out
    assert "1 model file(s) here, 1 bad" in out


def test_a_bad_file_is_fetched_again(files, capsys, monkeypatch):
    target = weights.files_of("evaluator", ["one"])[0].target()
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA[::-1])
    files.content["/evaluator/one.pt"] = DATA
    monkeypatch.setenv(fetching.MIRROR_VARIABLE, files.url)
    assert ended(capsys, "weights", "fetch", "evaluator", "--part", "one")[0] == 0
    assert target.read_bytes() == DATA


def test_without_a_network_the_files_to_bring_are_listed(files, capsys):
    status, out, err = ended(capsys, "weights", "fetch", "evaluator")
    assert status == 1
    for file in weights.files_of("evaluator"):
        assert f"  to      {file.target()}" in err
    assert "2 file(s) to bring" in err
    assert "sha256 " in err
    assert "note    a note" in err
    assert "Traceback" not in err + out


def test_a_damaged_archive_ends_with_the_list(files, capsys, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("in/one.pt", DATA)
    content = bytearray(archive.getvalue())
    content[39] = 0xFF
    files.content["/one.zip"] = bytes(content)
    entry = {"name": "one.pt", "parts": ["one"], "urls": [f"{files.url}/one.zip"], "member": "in/one.pt"}
    manifest = {"evaluator": {**MANIFEST["evaluator"], "files": [entry]}}
    monkeypatch.setattr(weights, "_manifest", lambda: manifest)
    status, _, err = ended(capsys, "weights", "fetch", "evaluator")
    assert status == 1
    assert "one.zip: no archive that holds in/one.pt (Error -3" in err
    assert "1 file(s) to bring" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "evaluatr"], "did you mean 'evaluator'?"),
        (["list", "evaluator", "--part", "onne"], "'evaluator' has no part 'onne'; did you mean 'one'?"),
        (["list", "--part", "one"], "--part belongs to a component"),
    ],
)
def test_errors(files, capsys, arguments, message):
    code, _, err = ended(capsys, "weights", *arguments)
    assert code == 2
    assert message in err


@pytest.fixture
def configuration(workspace):
    (workspace / "data.jsonl").write_text('{"text": "a"}\n')
    (workspace / "a.yaml").write_text(
        "evaluation_job_configs:\n  - hook: EvaluateDataHook\n    meta_name: quality\n    extra_configs:\n"
        "      type: dj_text_quality_classifier\n      dataset_path: data.jsonl\n      model: chinese\n"
    )
    return "a.yaml"


def test_check_names_file_place_and_command(configuration, capsys):
    status, out, _ = ended(capsys, "check", configuration)
    assert status == 0
    for file in weights.files_of("dj_text_quality_classifier", ["chinese"]):
        assert str(file.target()) in out
    assert "raysandbox weights fetch dj_text_quality_classifier" in out
    assert "0 error(s), 2 warning(s)" in out


@pytest.fixture
def default_roots(monkeypatch):
    for name in ("VBENCH_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("default_roots")
def test_doctor_counts_them(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path))
    _, out, _ = ended(capsys, "doctor")  # its status is the machine's
    found = " ".join(out.split())
    assert "weights vbench_video_evaluator │ · note │ 0 of 14 model files here" in found
    assert "environment vbench │ · note │ absent" in found


def test_doctor_says_what_a_configuration_lacks(configuration, capsys):
    status, out, _ = ended(capsys, "doctor", configuration)
    assert status == 1
    states = [line.split("│")[3].strip() for line in out.splitlines() if f"│ {configuration}:" in line]
    assert states == ["✗ red"] * 2
    for file in weights.files_of("dj_text_quality_classifier", ["chinese"]):
        file.target().parent.mkdir(parents=True, exist_ok=True)
        file.target().write_bytes(DATA)
    assert f"{configuration} │ ✓ green │ nothing is missing" in " ".join(
        ended(capsys, "doctor", configuration)[1].split()
    )


def test_light_verbs_import_nothing_heavy():
    program = (
        "import sys\nfrom raysandbox.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    )
    for verb in ("env", "weights"):
        subprocess.run([sys.executable, "-c", program, verb, "list"], check=True, timeout=60, stdout=subprocess.DEVNULL)
