"""EasyAnimate's generation by the original's keys: what they mean, and the external backend with a stand-in."""

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest

from raysandbox.config.validation import model_problems
from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors._video.external.generation import is_whole_mp4, shards_of
from raysandbox.executors.infer.easyanimate import _KEYS, EasyAnimateInference
from raysandbox.provision import environment_builder
from raysandbox.provision.environments import MANIFEST, driver_ray, pins_of
from tests.executors.video.external_scripts import checkout_in
from tests.executors.video.in_process import InProcessSession, InProcessWorkers, Killed
from tests.executors.video.tiny_pipelines import tiny_model

# The published configuration, key by key.
PUBLISHED = {
    "env_name": "easyanimate",
    "env_manager": "conda",
    "model_name": "easyanimate",
    "infer_name": "easyanimate-lora-generate",
    "train": {
        "model_path": {
            "pretrained_model_name_or_path": "org/model",
            "transformer_path": "./mm.safetensors",
            "lora_path": "./lora.safetensors",
        },
        "infer_config": {
            "image_size": 256,
            "prompt_info_path": "./VBench_mini_info.json",
            "gpu_num": 1,
            "batch_size": 8,
            "mixed_precision": "bf16",
            "video_num_per_prompt": 5,
            "seed": 43,
        },
        "saving_config": {"output_video_dir": "./videos"},
    },
}


def changed(raw, **more):
    """A copy with keys set by their dotted names, `__` for a dot."""
    found = copy.deepcopy(raw)
    for name, value in more.items():
        *parents, last = name.split("__")
        inside = found
        for parent in parents:
            inside = inside[parent]
        inside[last] = value
    return found


def problems(raw):
    found = model_problems(EasyAnimateInference, raw, lambda path, text, fix="": (".".join(map(str, path)), text))
    return dict(found)


def test_the_published_keys_mean_what_they_did():
    flat = _KEYS.build(PUBLISHED)
    assert flat.model_dump(exclude_unset=True) == {
        "model": "org/model",
        "transformer_path": "./mm.safetensors",
        "lora_path": "./lora.safetensors",
        "prompts": "./VBench_mini_info.json",
        "height": 256,
        "width": 256,
        "dtype": "bf16",
        "videos_per_prompt": 5,
        "seed": 43,
        "output_dir": "./videos",
        # What the original's script does.
        "num_inference_steps": 30,
        "guidance_scale": 6.0,
        "fps": 12,
        "lora_weight": 0.55,
    }
    assert problems(PUBLISHED) == {}


def test_the_plan_sees_the_paths():
    roles = {ref.path: ref.role for ref in path_refs(EasyAnimateInference, PUBLISHED)}
    assert roles == {
        "org/model": PathRole.MODEL,
        "./mm.safetensors": PathRole.INPUT,
        "./lora.safetensors": PathRole.INPUT,
        "./VBench_mini_info.json": PathRole.INPUT,
        "./videos": PathRole.OUTPUT,
    }


def test_our_keys_beside_the_originals():
    inside = changed(PUBLISHED, train__infer_config__guidance_scale=1.0, train__infer_config__offload="model")
    above = changed(PUBLISHED, guidance_scale=1.0, offload="model")
    assert _KEYS.build(inside) == _KEYS.build(above)
    assert _KEYS.build(above).guidance_scale == 1.0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"train__infer_config__image_siz": 3}, {"train.infer_config.image_siz": "unknown key 'image_siz'"}),
        (
            {"train__infer_config__gpu_num": 0},
            {"train.infer_config.gpu_num": "should be greater than or equal to 1, not 0"},
        ),
        ({"guidance_scale": -1}, {"guidance_scale": "should be greater than or equal to 0, not -1"}),
        ({"height": 128}, {"height": "is 128, but train.infer_config.image_size is 256: give one of them"}),
        ({"source": "x"}, {"source": "is a key of backend: external"}),
        ({"train__saving_config": {}, "backend": "external"}, {"train.saving_config.output_video_dir": "is required"}),
    ],
)
def test_findings_stand_at_the_key_that_was_given(change, found):
    assert problems(changed(PUBLISHED, **change)) == found


def test_it_generates_as_the_flat_component_does(tmp_path, caplog):
    pytest.importorskip("diffusers")
    model = tiny_model("easyanimate", tmp_path / "model")
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt_en": "a 'red' ball", "dimension": []}]))
    raw = changed(
        PUBLISHED,
        train__model_path={"pretrained_model_name_or_path": str(model)},
        train__infer_config={
            **{"image_size": 32, "prompt_info_path": str(tmp_path / "prompts.json"), "gpu_num": 3, "batch_size": 8},
            **{"mixed_precision": "no", "video_num_per_prompt": 2, "seed": 1, "num_frames": 5},
        },
        train__saving_config__output_video_dir=str(tmp_path / "videos"),
        num_inference_steps=1,
    )
    session = InProcessSession(tmp_path / "job")
    assert EasyAnimateInference.model_validate(raw).infer(session) == str(tmp_path / "videos")
    assert {path.name for path in (tmp_path / "videos").glob("*.mp4")} == {"a 'red' ball-0.mp4", "a 'red' ball-1.mp4"}
    assert {options.get("num_workers") for options in session.workers.options} == {3}
    assert (
        "no meaning here: env_name, env_manager, train.infer_config.batch_size (videos are made one by one"
        in caplog.text
    )


# The external backend.

PROMPTS = [f'a dog\'s "life" {number}; $HOME `ls`' for number in range(6)]


@pytest.fixture
def external(tmp_path, monkeypatch):
    """A configuration for a stand-in of the original's script."""
    (tmp_path / "model").mkdir()
    (tmp_path / "lora.safetensors").write_text("lora")
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt_en": text, "dimension": []} for text in PROMPTS]))
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STANDIN_PROMPT", PROMPTS[3])
    return changed(
        {key: value for key, value in PUBLISHED.items() if key != "env_name"},
        backend="external",
        env=sys.executable,
        source=str(checkout_in(tmp_path / "EasyAnimate")),
        contact_sheet=False,
        train__model_path={
            "pretrained_model_name_or_path": str(tmp_path / "model"),
            "lora_path": str(tmp_path / "lora.safetensors"),
        },
        train__infer_config__prompt_info_path=str(tmp_path / "prompts.json"),
        train__infer_config__gpu_num=3,
        train__infer_config__video_num_per_prompt=2,
        train__saving_config__output_video_dir=str(tmp_path / "videos"),
    )


def infer(raw, tmp_path, allow_user_code=True, **workers):
    session = InProcessSession(tmp_path / "job", InProcessWorkers(**workers), allow_user_code=allow_user_code)
    infer.session = session
    assert EasyAnimateInference.model_validate(raw).infer(session) == str(tmp_path / "videos")
    return session


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def generated(tmp_path):
    """What the stand-in made, in all its calls."""
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


ALL = sorted(f"{prompt}-{index}.mp4" for prompt in PROMPTS for index in range(2))


def test_external_generates_in_shards(external, tmp_path):
    session = infer(external, tmp_path)
    assert names(tmp_path / "videos") == ALL
    assert session.workers.done == [tuple(PROMPTS[0:2]), tuple(PROMPTS[2:4]), tuple(PROMPTS[4:6])]
    assert session.workers.options[0].items() >= {"num_workers": 3, "elastic": True, "tries": 2}.items()
    assert sorted(event["file"] for event in session.told("unit_done")) == ALL
    content = (tmp_path / "videos" / ALL[0]).read_bytes()
    assert f"43 {tmp_path}/lora.safetensors".encode() in content
    assert names(tmp_path / "videos/.external/" / next((tmp_path / "videos/.external").iterdir()).name) != []


def test_the_newest_checkpoint_of_a_folder(external, tmp_path):
    for step in (2, 10):
        (tmp_path / "trained").mkdir(exist_ok=True)
        (tmp_path / f"trained/checkpoint-{step}.safetensors").touch()
    infer(changed(external, train__model_path__lora_path=str(tmp_path / "trained")), tmp_path)
    content = (tmp_path / "videos" / ALL[0]).read_bytes()
    assert f"{tmp_path}/trained/checkpoint-10.safetensors".encode() in content


def test_external_shows_the_videos(external, tmp_path):
    pytest.importorskip("av")
    with pytest.raises(UserError, match=r"compare_with: there is no folder .*/earlier"):
        infer({**external, "contact_sheet": None, "compare_with": str(tmp_path / "earlier")}, tmp_path)
    assert generated(tmp_path) == []
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / ALL[0]).touch()
    session = infer({**external, "contact_sheet": None, "compare_with": str(tmp_path / "earlier")}, tmp_path)
    assert (session.artifacts / "contact_sheet.png").stat().st_size > 1000


def test_videos_that_another_node_keeps_to_itself(external, tmp_path):
    class Elsewhere(InProcessWorkers):
        def map(self, work, units, **options):
            for index, result in super().map(work, units, **options):
                for name in result[:1]:
                    (tmp_path / "videos" / name).unlink()
                yield index, result

    session = InProcessSession(tmp_path / "job", Elsewhere(), allow_user_code=True)
    with pytest.raises(JobFailed, match=r"3 videos that workers made are not in .*storage that all of them share"):
        EasyAnimateInference.model_validate(external).infer(session)


def test_external_does_nothing_twice(external, tmp_path):
    infer(external, tmp_path)
    (tmp_path / "videos" / ALL[0]).write_bytes(b"altered")
    (tmp_path / "videos" / ALL[-1]).unlink()
    (tmp_path / "videos/mine.mp4").touch()
    made = generated(tmp_path)
    session = infer(external, tmp_path)
    assert generated(tmp_path)[len(made) :] == [
        f"{prompt}-{index}" for prompt in (PROMPTS[0], PROMPTS[5]) for index in (0, 1)
    ]
    assert session.told("units_found") == [{"count": 10, "prompts": 4}]
    assert names(tmp_path / "videos") == sorted([*ALL, "mine.mp4"])


def test_another_lora_makes_all_anew(external, tmp_path):
    infer(external, tmp_path)
    (tmp_path / "videos/mine.mp4").touch()
    (tmp_path / "lora.safetensors").write_text("another")
    infer(changed(external, train__infer_config__video_num_per_prompt=1), tmp_path)
    assert names(tmp_path / "videos") == sorted([*(f"{prompt}-0.mp4" for prompt in PROMPTS), "mine.mp4"])
    assert len(generated(tmp_path)) == 12 + 6


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("fail", r"ended with status 3; its last lines:\n(?s:.*)CUDA error"),
        ("skip", r"ended with status 0, but 1 videos are missing or damaged: a dog's \"life\" 3.*-1\.mp4"),
        ("torn", r"ended with status 0, but 1 videos are missing or damaged"),
    ],
)
def test_one_shard_fails(external, tmp_path, monkeypatch, mood, message):
    monkeypatch.setenv("STANDIN", mood)
    with pytest.raises(JobFailed, match=rf"1 of 3 shards failed; .*\nshard 2 of 3: infer_lora.py on .*{message}"):
        infer(external, tmp_path)
    assert len(infer.session.told("unit_failed")) == 1
    assert set(ALL) - set(names(tmp_path / "videos")) == {f"{PROMPTS[3]}-1.mp4"}
    monkeypatch.setenv("STANDIN", "")
    before = len(generated(tmp_path))
    infer(external, tmp_path)  # only the prompt whose videos are missing
    assert generated(tmp_path)[before:] == [f"{PROMPTS[3]}-0", f"{PROMPTS[3]}-1"]
    assert names(tmp_path / "videos") == ALL


def test_a_hanging_shard(external, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN", "hang")
    with pytest.raises(JobFailed, match=r"wrote nothing for 0\.4 s and was ended \(stall_timeout_s\)"):
        infer({**external, "stall_timeout_s": 0.4}, tmp_path)
    assert len(names(tmp_path / "videos")) == 11
    with pytest.raises(JobFailed, match=r"wrote nothing for 0\.3 s and was ended \(stall_timeout_s\)"):
        infer(changed(external, train__infer_config__stall_timeout_s=0.3), tmp_path)


def test_a_time_limit_counts_in_both_backends():
    assert _KEYS.build({**PUBLISHED, "stall_timeout_s": 60.0}).stall_timeout_s == 60.0
    assert not problems({**PUBLISHED, "stall_timeout_s": 60.0})


def test_videos_are_not_compared_with_themselves(external, tmp_path):
    for raw, same in ((external, f"{tmp_path}/model/../videos"), (PUBLISHED, "videos/")):
        found = problems({**raw, "compare_with": same})
        assert any("compare_with: is the output_dir" in text for text in found.values()), found


def test_a_driver_that_died_goes_on(external, tmp_path):
    with pytest.raises(Killed):
        infer(external, tmp_path, kill_after=1)
    assert len(names(tmp_path / "videos")) == 4
    # What a worker left that died with the driver: one video is whole.
    notes = next((tmp_path / "videos/.external").iterdir())
    left = notes / "shard-dead"
    (left / "videos").mkdir(parents=True)
    (left / "prompts.json").write_text(json.dumps([{"prompt_en": PROMPTS[5]}]))
    shutil.copy(tmp_path / "videos" / names(tmp_path / "videos")[0], left / f"videos/{PROMPTS[5]}-0.mp4")
    (left / f"videos/{PROMPTS[5]}-1.mp4").write_bytes(b"\0\0\0\x08ftyp\0\0")
    session = infer(external, tmp_path)
    assert session.told("units_found") == [{"count": 5, "prompts": 2}]
    assert names(tmp_path / "videos") == ALL
    assert not left.exists()


def test_prompts_that_cannot_name_files(external, tmp_path):
    for prompt in ("a/b", "x" * 300):
        (tmp_path / "prompts.json").write_text(json.dumps([{"prompt_en": prompt}]))
        with pytest.raises(
            UserError, match=r"cannot write a file named after .*change the prompt, or use backend: diff"
        ):
            infer(external, tmp_path)


def test_code_of_a_checkout_needs_leave(external, tmp_path):
    with pytest.raises(UserError, match="runs only with --allow-user-code, or after `raysandbox env create"):
        infer(external, tmp_path, allow_user_code=False)


def test_the_checkout_of_the_environment(external, tmp_path, monkeypatch):
    """The checkout that `env create --source` was given is the one by default, and its code may run."""
    root = tmp_path / "environments"
    built = root / ".builds/easyanimate-1"
    (built / "bin").mkdir(parents=True)
    (built / "bin/python").symlink_to(sys.executable)
    (built / "package").mkdir()
    (built / "package/raysandbox").symlink_to(environment_builder.package_folder())
    manifest = {"python": "3.11.7", "ray": driver_ray(), "pins": pins_of("easyanimate").digest}
    source = {"path": external["source"], "commit": None, "changed": None, "requirements": ""}
    (built / MANIFEST).write_text(json.dumps({**manifest, "source": source}))
    (root / "easyanimate").symlink_to(built)
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(root))
    raw = changed(external, env=None, source=None, env_name="easyanimate")
    assert EasyAnimateInference.missing_weights(raw) == {}
    infer(raw, tmp_path, allow_user_code=False)
    assert names(tmp_path / "videos") == ALL


def test_keys_that_the_script_does_not_know(external):
    found = problems(changed(external, num_frames=5, train__infer_config__fps=8, videos_per_prompt={"default": 2}))
    assert (
        found.pop("videos_per_prompt")
        == "is {'default': 2}, but train.infer_config.video_num_per_prompt is 2: give one of them"
    )
    assert all(text.startswith("has no meaning for backend: external") for text in found.values())
    assert set(found) == {"num_frames", "train.infer_config.fps"}


@pytest.mark.parametrize(
    ("prompts", "workers", "sizes"), [(0, 3, []), (2, 3, [1, 1]), (6, 4, [1, 2, 1, 2]), (101, 1, [33, 34, 34])]
)
def test_shards_are_contiguous_and_even(prompts, workers, sizes):
    given = [str(number) for number in range(prompts)]
    shards = shards_of(given, workers)
    assert [prompt for shard in shards for prompt in shard] == given
    assert [len(shard) for shard in shards] == sizes


def box(kind, size, content=b""):
    return size.to_bytes(4, "big") + kind + content


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (box(b"ftyp", 8) + box(b"moov", 8), True),
        (box(b"ftyp", 8) + box(b"mdat", 1, (20).to_bytes(8, "big") + b"1234") + box(b"moov", 8), True),
        (box(b"ftyp", 8) + box(b"moov", 8) + box(b"mdat", 0, b"to the end"), True),
        (box(b"ftyp", 8) + box(b"mdat", 30, b"cut"), False),
        (box(b"ftyp", 8) + box(b"mdat", 12, b"1234"), False),
        (b"", False),
        (b"<html>no video</html>", False),
        (box(b"ftyp", 8) + box(b"moov", 8) + b"\0\0", False),
    ],
)
def test_whole_mp4_files(tmp_path, content, whole):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    assert is_whole_mp4(path) is whole
    assert not is_whole_mp4(Path("/no/such.mp4"))
