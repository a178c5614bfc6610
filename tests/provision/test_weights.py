"""The manifest of model files, and what is said of files on this machine."""

import gzip
import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from raysandbox.core.errors import UnknownNameError
from raysandbox.evaluators import dj_text_quality_classifier
from raysandbox.ops.base import OPERATORS
from raysandbox.provision import weights
from raysandbox.provision.weights import (
    WeightFile,
    checked_parts,
    components,
    files_of,
    missing,
    missing_message,
    parts_of,
)

DATA = b"weights " * 100
VBENCH = "vbench_video_evaluator"


@pytest.fixture(autouse=True)
def _default_roots(monkeypatch):
    for name in ("VBENCH_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


def file_at(tmp_path, monkeypatch, **more):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    return WeightFile("c", "model.pt", ("p",), "vbench", **more)


@pytest.mark.parametrize("component", components())
def test_the_manifest_is_sound(component):
    files = files_of(component)
    assert len({(file.root, file.name) for file in files}) == len(files)
    for file in files:
        assert set(file.parts) <= set(parts_of(component))
        assert file.urls or file.note
        assert all(url.startswith("https://") for url in file.urls)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert not Path(file.name).is_absolute()
        assert ".." not in Path(file.name).parts


def test_every_dimension_of_vbench_knows_its_files():
    needs = {part: [file.name for file in files_of(VBENCH, [part])] for part in parts_of(VBENCH)}
    assert len(needs) == 16
    assert [part for part, names in needs.items() if not names] == ["temporal_flickering"]
    assert needs["motion_smoothness"] == ["amt_model/amt-s.pth"]
    assert needs["aesthetic_quality"] == [
        "clip_model/ViT-L-14.pt",
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    ]
    assert files_of(VBENCH, ["motion_smoothness"])[0].licence == "CC BY-NC 4.0"
    assert files_of(VBENCH, ["no such dimension"]) == []


def test_roots_follow_the_libraries(monkeypatch):
    def where(name):
        return {file.name: file.target() for file in files_of(VBENCH)}[name]

    home = Path.home()
    assert where("amt_model/amt-s.pth") == home / ".cache/vbench/amt_model/amt-s.pth"
    assert where("dino_vitbase16_pretrain.pth") == home / ".cache/torch/hub/checkpoints/dino_vitbase16_pretrain.pth"
    monkeypatch.setenv("VBENCH_CACHE_DIR", "/v")
    monkeypatch.setenv("TORCH_HOME", "/t")
    monkeypatch.setenv("HF_HOME", "/h")
    assert where("amt_model/amt-s.pth") == Path("/v/amt_model/amt-s.pth")
    assert where("dino_vitbase16_pretrain.pth") == Path("/t/hub/checkpoints/dino_vitbase16_pretrain.pth")
    assert where("models--bert-base-uncased/snapshots") == Path("/h/hub/models--bert-base-uncased/snapshots")


def test_the_quality_classifier_looks_where_its_files_belong():
    for file in files_of("dj_text_quality_classifier"):
        file.target().parent.mkdir(parents=True, exist_ok=True)
        file.target().touch()
    found = [dj_text_quality_classifier.find_model(name) for name in ("gpt3", "chinese", "code")]
    found += [Path(dj_text_quality_classifier._find_tokenizer(None, name)) for name in ("zh.sp.model", "code.sp.model")]
    assert found == [file.target() for file in files_of("dj_text_quality_classifier")]


def test_states(tmp_path, monkeypatch):
    file = file_at(tmp_path, monkeypatch, size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    assert file.state().state == file.verify().state == "missing"
    for content, state, verified in [
        (b"", "empty", "empty"),
        (DATA[:-1], "wrong size", "wrong size"),
        (DATA[::-1], "unchecked", "corrupt"),
        (DATA, "unchecked", "ok"),
    ]:
        file.target().write_bytes(content)
        assert (file.state().state, file.verify().state) == (state, verified)


def test_a_prefix_of_the_digest_is_compared(tmp_path, monkeypatch):
    good = file_at(tmp_path, monkeypatch, sha256_prefix=hashlib.sha256(DATA).hexdigest()[:8])
    good.target().write_bytes(DATA)
    assert good.verify().state == "ok"
    assert "does not start with 00000000" in file_at(tmp_path, monkeypatch, sha256_prefix="0" * 8).verify().detail


def test_without_a_digest_damage_is_found_where_it_shows(tmp_path, monkeypatch):
    file = file_at(tmp_path, monkeypatch)
    target = file.target()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", DATA)
    whole = target.read_bytes()
    assert file.verify() == weights.Verdict("unchecked", "no digest is known")
    target.write_bytes(whole[:-30])
    assert "ends early or is damaged" in file.verify().detail
    target.write_bytes(whole.replace(b"weights", b"wrights", 1))
    assert "member archive/data.pkl is damaged" in file.verify().detail
    target.write_bytes(gzip.compress(DATA))
    assert file.verify().good
    target.write_bytes(gzip.compress(DATA)[:-4])
    assert file.verify().state == "corrupt"
    target.write_bytes(b"\n<!DOCTYPE html><title>Sign in</title>")
    assert file.verify().detail == "a web page, not the file"


def test_folders(tmp_path, monkeypatch):
    folder = file_at(tmp_path, monkeypatch, holds=("hubconf.py", "*.bin"))
    assert folder.state().state == "missing"
    folder.target().mkdir()
    (folder.target() / "hubconf.py").touch()
    assert folder.state() == weights.Verdict("incomplete", "lacks *.bin")
    (folder.target() / "a.bin").touch()
    assert folder.verify().good
    other = file_at(tmp_path, monkeypatch, instead="unpacked")
    assert other.state().state == "missing"
    (tmp_path / "unpacked").mkdir()
    assert other.verify().good


def test_missing_says_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    parts = ["motion_smoothness", "temporal_flickering"]
    absent = missing(VBENCH, parts)
    assert [file.name for file in absent] == ["amt_model/amt-s.pth"]
    message = missing_message(absent, parts)
    assert str(tmp_path / "amt_model/amt-s.pth") in message
    assert "(missing)" in message
    assert f"`raysandbox weights fetch {VBENCH} --part motion_smoothness`" in message
    absent[0].target().parent.mkdir()
    absent[0].target().write_bytes(DATA)
    assert missing(VBENCH, parts) == []
    assert missing_message([]) == ""


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'vbench_video_evaluator'"):
        files_of("vbench_video_evaluatr")
    with pytest.raises(UnknownNameError, match="did you mean 'motion_smoothness'"):
        checked_parts(VBENCH, ["motion_smothness"])
    assert checked_parts(VBENCH, ["temporal_flickering"]) == ["temporal_flickering"]


@pytest.mark.parametrize("name", [name for name in components() if name in OPERATORS])
def test_default_models_of_operators_are_those_of_the_manifest(name):
    (file,) = files_of(name)
    defaults = [field.default for field in OPERATORS.get(name).model_fields.values() if isinstance(field.default, str)]
    assert file.name in [f"models--{default.replace('/', '--')}/snapshots" for default in defaults]
