"""EasyAnimate's training by the original's keys: what they mean, and the external backend with a stand-in."""

import copy
import json
import os
import platform
import sys
import time
from pathlib import Path

import pytest

from raysandbox.config.validation import model_problems
from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors.infer.easyanimate import EasyAnimateInference
from raysandbox.executors.train.easyanimate import _KEYS, EasyAnimateTrainer
from raysandbox.provision.environments import MANIFEST, driver_ray, package_folder
from tests.executors.video.external_scripts import checkout_in
from tests.executors.video.in_process import InProcessSession
from tests.executors.video.tiny_pipelines import tiny_model
from tests.executors.video.training_setup import Worker, clips_in, session_in

# The published configuration, key by key.
PUBLISHED = {
    "env_name": "easyanimate",
    "env_manager": "conda",
    "model_name": "easyanimate",
    "trainer_name": "easyanimate-lora-trainer",
    "train": {
        "tracker_config": {"project_name": "easy-animate", "experiment_name": "test"},
        "model_path": {"pretrained_model_name_or_path": "org/model", "transformer_path": "./mm.safetensors"},
        "dataset_path": {"dataset_name": "", "dataset_meta_name": "./data.json"},
        "training_config": {
            "sample_size": 256,
            "mixed_precision": "bf16",
            "batch_size_per_gpu": 8,
            "gradient_accumulation_steps": 1,
            "num_train_epochs": 2,
            "dataloader_num_workers": 8,
            "seed": 42,
        },
        "saving_config": {"output_dir": "./lora"},
    },
}


@pytest.fixture(scope="module")
def tiny_easyanimate(tmp_path_factory):
    return tiny_model("easyanimate", tmp_path_factory.mktemp("models") / "easyanimate")


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


def problems(raw, component=EasyAnimateTrainer):
    found = model_problems(component, raw, lambda path, message, fix="": (".".join(map(str, path)), message))
    return dict(found)


def test_the_published_keys_mean_what_they_did():
    flat = _KEYS.build(PUBLISHED)
    assert flat.type_name == "diffusers"
    assert flat.model_dump(exclude_unset=True) == {
        "model": "org/model",
        "transformer_path": "./mm.safetensors",
        "dataset": "./data.json",
        "dataset_root": None,
        "height": 256,
        "width": 256,
        "dtype": "bf16",
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "epochs": 2,
        "seed": 42,
        "output_dir": "./lora",
    }
    assert problems(PUBLISHED) == {}
    assert _KEYS.build(changed(PUBLISHED, train__training_config__mixed_precision="no")).dtype == "fp32"
    assert _KEYS.build(changed(PUBLISHED, train__dataset_path__dataset_name="/clips")).dataset_root == "/clips"


def test_the_plan_sees_the_paths():
    roles = {ref.path: ref.role for ref in path_refs(EasyAnimateTrainer, PUBLISHED)}
    assert roles == {
        "org/model": PathRole.MODEL,
        "./mm.safetensors": PathRole.INPUT,
        "./data.json": PathRole.INPUT,
        "./lora": PathRole.OUTPUT,
    }


def test_our_keys_beside_the_originals():
    inside = _KEYS.build(changed(PUBLISHED, train__training_config__rank=16, train__training_config__num_frames=9))
    above = _KEYS.build(changed(PUBLISHED, rank=16, num_frames=9))
    assert (inside.rank, inside.num_frames) == (16, 9)
    assert inside == above
    alone = EasyAnimateTrainer.model_validate({"model": "org/model", "dataset": "x", "output_dir": "y"})
    assert alone._flat().dataset == "x"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            {"train__training_config__sampel_size": 3},
            {"train.training_config.sampel_size": "unknown key 'sampel_size'"},
        ),
        (
            {"train__training_config__sample_size": 8},
            {"train.training_config.sample_size": "should be greater than or equal to 16, not 8"},
        ),
        (
            {"train__training_config__rank": 0},
            {"train.training_config.rank": "should be greater than or equal to 1, not 0"},
        ),
        ({"train__saving_config": {}}, {"train.saving_config.output_dir": "is required"}),
        ({"seed": 3}, {"seed": "is 3, but train.training_config.seed is 42: give one of them"}),
        (
            {"train__training_config__height": 128},
            {"train.training_config.height": "is 128, but train.training_config.sample_size is 256: give one of them"},
        ),
        ({"script": "x.py"}, {"script": "is a key of backend: external"}),
        ({"backend": "extern"}, {"backend": "should be 'diffusers' or 'external', not 'extern'"}),
        (
            {"train__training_config__warmup_steps": 5, "max_steps": 3},
            {"train.training_config.warmup_steps": "warmup_steps must be fewer than max_steps"},
        ),
    ],
)
def test_findings_stand_at_the_key_that_was_given(change, found):
    assert problems(changed(PUBLISHED, **change)) == found


def test_the_same_value_twice_is_no_contradiction():
    assert problems(changed(PUBLISHED, seed=42, train__training_config__width=256)) == {}


def test_what_does_not_fit_the_model_is_found_before(tiny_easyanimate):
    raw = changed(PUBLISHED, train__model_path__pretrained_model_name_or_path=str(tiny_easyanimate))
    found = problems(changed(raw, train__training_config__sample_size=100, num_frames=16))
    assert list(found) == ["train.training_config.sample_size"]
    assert "needs a multiple of 16" in found["train.training_config.sample_size"]
    found = problems(changed(raw, num_frames=16))
    assert list(found) == ["num_frames"]


def test_a_missing_model_is_named_by_its_key(tmp_path):
    (tmp_path / "model").mkdir()
    raw = changed(PUBLISHED, train__model_path__pretrained_model_name_or_path=str(tmp_path / "model"))
    assert list(EasyAnimateTrainer.missing_weights(raw)) == ["train.model_path.pretrained_model_name_or_path"]
    raw = {"model": str(tmp_path / "model")}
    assert list(EasyAnimateTrainer.missing_weights(raw)) == ["model"]


def test_it_trains_as_the_flat_component_does(tiny_easyanimate, tmp_path, caplog):
    raw = changed(
        PUBLISHED,
        train__model_path={"pretrained_model_name_or_path": str(tiny_easyanimate)},
        train__dataset_path__dataset_meta_name=str(clips_in(tmp_path / "clips", 4)),
        train__training_config={
            **{"sample_size": 32, "num_frames": 5, "stride": 1, "mixed_precision": "no", "batch_size_per_gpu": 2},
            **{"num_train_epochs": 1, "dataloader_num_workers": 8, "seed": 1, "rank": 2, "alpha": 2},
        },
        train__saving_config__output_dir=str(tmp_path / "lora"),
    )
    trainer = EasyAnimateTrainer.model_validate(raw)
    worker = Worker(trainer.prepare(session_in(tmp_path / "job")), tmp_path)
    assert trainer.train(worker) == str(tmp_path / "lora")
    assert list(worker.values("loss")) == [1, 2]
    assert (tmp_path / "lora/checkpoint-2.safetensors").exists()
    assert (
        "no meaning here: env_name, env_manager, train.training_config.dataloader_num_workers, train.tracker_config"
        in caplog.text
    )


# The external backend.


@pytest.fixture
def external(tmp_path):
    """A configuration for a stand-in of the original's script."""
    (tmp_path / "model").mkdir()
    (tmp_path / "data.json").write_text(json.dumps([{"file_path": f"{n}.mp4", "text": "a 'b'"} for n in range(4)]))
    (tmp_path / "mm.safetensors").touch()
    return changed(
        {key: value for key, value in PUBLISHED.items() if key != "env_name"},
        backend="external",
        env=sys.executable,
        source=str(checkout_in(tmp_path / "EasyAnimate")),
        launcher="python",
        train__model_path={
            "pretrained_model_name_or_path": str(tmp_path / "model"),
            "transformer_path": str(tmp_path / "mm.safetensors"),
        },
        train__dataset_path__dataset_meta_name=str(tmp_path / "data.json"),
        train__training_config__num_train_epochs=1,
        train__saving_config__output_dir=str(tmp_path / "lora"),
    )


def train(raw, tmp_path, allow_user_code=True):
    trainer = EasyAnimateTrainer.model_validate(raw)
    worker = Worker(trainer.prepare(InProcessSession(tmp_path / "job", allow_user_code=allow_user_code)), tmp_path)
    try:
        result = trainer.train(worker)
    finally:
        train.losses = worker.values("loss")
    return worker, result


def told(text):
    """The arguments that the stand-in says it got."""
    return json.loads(next(line for line in text.splitlines() if line.startswith('{"args"')))


def test_external_trains(external, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worker, result = train(external, tmp_path)
    assert result == str(tmp_path / "lora")
    assert worker.values("loss") == {step: 1 / step for step in (1, 2, 3, 4)}
    assert worker.values("lr") == dict.fromkeys((1, 2, 3, 4), 2e-5)
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == [
        "checkpoint-2.safetensors",
        "checkpoint-4.safetensors",
        "training.json",
    ]
    seen = told(capfd.readouterr().out)
    assert seen["cuda"] == "1"
    assert seen["cwd"] == external["source"]
    expected = {"sample_size": 256, "sample_n_frames": 16, "train_batch_size": 8, "seed": 42, "learning_rate": 2e-5}
    assert seen["args"].items() >= {**expected, "train_data_dir": "", "sample_stride": 2}.items()
    assert seen["args"]["transformer_path"] == str(tmp_path / "mm.safetensors")


def test_external_relative_paths_and_our_keys(external, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = changed(
        external,
        source="EasyAnimate",
        train__dataset_path__dataset_meta_name="data.json",
        train__model_path={"pretrained_model_name_or_path": "./model"},
        train__saving_config__output_dir="lora",
        learning_rate=1e-3,
        train__training_config__num_frames=8,
    )
    assert train(raw, tmp_path)[1] == "lora"
    seen = told(capfd.readouterr().out)["args"]
    assert seen["train_data_meta"] == str(tmp_path / "data.json")
    assert (seen["learning_rate"], seen["sample_n_frames"], seen["transformer_path"]) == (1e-3, 8, None)
    assert (tmp_path / "lora/checkpoint-4.safetensors").exists()


def test_the_shell_wrapper_gets_its_14_arguments(external, tmp_path):
    train({**external, "script": "train_lora.sh"}, tmp_path)
    assert len(train.losses) == 4


def test_arguments_of_the_users_own(external, tmp_path, capfd):
    arguments = ["--a={seed}", "--b={transformer_path}", "{experiment_name}", "{{x}}", "{dataset_name}"]
    raw = changed(external, script="mine.py", script_arguments=arguments)
    raw["train"]["model_path"]["transformer_path"] = None
    (Path(external["source"]) / "mine.py").write_text("import sys; print(sys.argv[1:])")
    with pytest.raises(JobFailed, match=r"wrote no checkpoint-STEP\.safetensors"):
        train(raw, tmp_path)
    assert "['--a=42', 'test', '{x}', '']" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("mood", "message", "losses"),
    [
        ("fail", r"ended with status 3; its last lines:\n(?s:.*)CUDA out of memory$", 2),
        ("kill", r"was killed by SIGKILL", 2),
        ("no checkpoint", r"ended with status 0, but wrote no checkpoint-STEP\.safetensors", 4),
        ("torn", r"checkpoint-4\.safetensors is no whole safetensors file", 4),
        ("nan", r"its last loss is nan, in step 4", 4),
    ],
)
def test_external_failures(external, tmp_path, monkeypatch, mood, message, losses):
    monkeypatch.setenv("STANDIN", mood)
    with pytest.raises(JobFailed, match=message):
        train(external, tmp_path)
    assert len(train.losses) == losses
    assert not (tmp_path / "lora").exists()


def test_a_hanging_script_is_ended(external, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN", "hang")
    monkeypatch.setenv("STANDIN_PIDS", str(tmp_path / "pids"))
    with pytest.raises(JobFailed, match=r"wrote nothing for 1 s and was ended \(stall_timeout_s\)"):
        train({**external, "stall_timeout_s": 1}, tmp_path)
    for pid in (tmp_path / "pids").read_text().split():
        end = time.monotonic() + 5
        while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split():
            assert time.monotonic() < end
            time.sleep(0.02)


def test_an_earlier_result_stays_when_a_training_fails(external, tmp_path, monkeypatch):
    train(external, tmp_path)
    monkeypatch.setenv("STANDIN", "fail")
    with pytest.raises(JobFailed):
        train(external, tmp_path)
    assert (tmp_path / "lora/checkpoint-4.safetensors").exists()


def test_several_workers_are_refused(external, tmp_path):
    trainer = EasyAnimateTrainer.model_validate(external)
    with pytest.raises(JobFailed, match="trains in one worker"):
        trainer.train(Worker(None, world_size=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, "was not built from a checkout: name the one with the scripts"),
        ({"script": "scripts/none.py"}, "holds no scripts/none.py"),
        ({"script": "../data.json"}, r"script: \.\./data\.json lies outside of .*EasyAnimate"),
        ({"script": sys.executable}, "lies outside of"),
        ({"script_arguments": ["--x={nothing}"]}, "names 'nothing'; known: batch_size_per_gpu,"),
        ({"script_arguments": ["--x={"]}, "write {{ and }} for braces"),
        ({"env": "/no/python"}, "there is no Python interpreter at /no/python"),
        ({"env": None}, r"'easyanimate' is not built on this machine .*env create easyanimate --source CHECKOUT"),
    ],
)
def test_what_is_missing_is_said_before_the_training(external, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train({**external, **change}, tmp_path)


def test_code_of_a_checkout_needs_leave(external, tmp_path):
    with pytest.raises(UserError, match="runs only with --allow-user-code"):
        train(external, tmp_path, allow_user_code=False)


@pytest.fixture
def built(external, tmp_path, monkeypatch):
    """The configuration with an environment that was built from its checkout."""
    folder = tmp_path / "environments/easyanimate"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "package").mkdir()
    (folder / "package/raysandbox").symlink_to(package_folder())
    held = {"ray": driver_ray(), "python": platform.python_version(), "packages": {}}
    source = {"path": external["source"], "requirements": ""}
    (folder / MANIFEST).write_text(json.dumps({**held, "source": source}))
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(folder.parent))
    return {key: value for key, value in external.items() if key not in ("env", "source")}


def test_leave_for_a_checkout_is_for_nothing_else(built, external, tmp_path, monkeypatch):
    assert train(built, tmp_path, allow_user_code=False)[1] == str(tmp_path / "lora")
    evil = tmp_path / "evil.py"
    evil.touch()
    (Path(external["source"]) / "link.py").symlink_to(evil)
    for script in ("../evil.py", str(evil), "link.py"):
        with pytest.raises(UserError, match="lies outside of"):
            train({**built, "script": script}, tmp_path, allow_user_code=False)
    # An interpreter is no environment, whatever its path is.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "easyanimate").symlink_to(sys.executable)
    for env in ("./easyanimate", str(tmp_path / "environments/easyanimate/bin/python")):
        with pytest.raises(UserError, match="runs only with --allow-user-code"):
            train({**built, "env": env, "source": external["source"]}, tmp_path, allow_user_code=False)


@pytest.mark.parametrize("name", ["train_lora.py", "train_lora.sh", "config/motion.yaml", "new/module.py"])
def test_another_code_of_the_checkout_is_another_job(built, external, name):
    before = EasyAnimateTrainer.surroundings(built), EasyAnimateInference.surroundings(built)
    assert (EasyAnimateTrainer.surroundings(built), EasyAnimateInference.surroundings(built)) == before
    source = Path(external["source"])
    (source / ".git").mkdir()
    (source / ".git/hook.py").touch()
    (source / "README.md").touch()
    assert EasyAnimateTrainer.surroundings(built) == before[0]
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("print()")
    assert EasyAnimateTrainer.surroundings(built) != before[0]
    assert EasyAnimateInference.surroundings(built) != before[1]


def test_a_relative_output_starts_where_the_driver_is(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = EasyAnimateTrainer.model_validate(changed(external, train__saving_config__output_dir="lora"))
    prepared = trainer.prepare(InProcessSession(tmp_path / "job", allow_user_code=True))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert trainer.train(Worker(prepared, tmp_path)) == "lora"
    assert (tmp_path / "lora/checkpoint-4.safetensors").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_the_tracker_names_the_run_and_nothing_else(external, tmp_path, caplog):
    tracker = {"project_name": "mine", "num_train_epochs": 99, "seed": 1, "mixed_precision": "no"}
    raw = changed(external, train__tracker_config=tracker)
    prepared = EasyAnimateTrainer.model_validate(raw).prepare(InProcessSession(tmp_path / "job", allow_user_code=True))
    found = {key: prepared.values[key] for key in ("experiment_name", *tracker)}
    own = {"num_train_epochs": 1, "seed": 42, "mixed_precision": "bf16"}
    assert found == {"project_name": "mine", "experiment_name": "train", **own}
    assert "train.tracker_config.num_train_epochs, train.tracker_config.seed, train.tracker_config.mix" in caplog.text


def test_keys_that_the_script_does_not_know(external):
    found = problems(changed(external, train__training_config__rank=4, train__training_config__width=128))
    assert found.pop("train.training_config.rank").startswith("has no meaning for backend: external")
    assert found == {
        "train.training_config.width": "is 128, but train.training_config.sample_size is 256: give one of them"
    }


def test_required_keys_are_named_where_they_belong():
    assert problems({"backend": "external"}) == {
        "": "train.model_path.pretrained_model_name_or_path, train.dataset_path.dataset_meta_name, "
        "train.saving_config.output_dir are required"
    }
    found = problems({"train": {"model_path": {"pretrained_model_name_or_path": "x"}, "dataset_path": {}}})
    assert found == {
        "train.dataset_path.dataset_meta_name": "is required",
        "train": "train.saving_config.output_dir is required",
    }


def test_a_missing_environment_is_found_before(external):
    assert EasyAnimateTrainer.missing_weights(external) == {}
    assert list(EasyAnimateTrainer.missing_weights({**external, "env": "/no/python"})) == ["env"]
    raw = {"backend": "external", "env_name": "easyanimate"}
    assert "raysandbox env create easyanimate" in EasyAnimateTrainer.missing_weights(raw)["env_name"]
