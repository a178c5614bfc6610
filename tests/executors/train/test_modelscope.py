"""Trains ModelScope's real GPT-3 class, one layer of 16, on 48 short rows: about a second each."""

import json
import logging
import multiprocessing
import subprocess
import sys
import time

import pytest

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, MissingExtraError
from raysandbox.executors.base import TRAINERS
from raysandbox.executors.train.modelscope import ModelscopeTrainer
from raysandbox.sandbox.contents import holds_text

pytest.importorskip("modelscope")

# Warnings of ModelScope's own code, with the newest torch and transformers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:distutils Version classes:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning"),
]

TRAIN = {
    "max_epochs": 2,
    "optimizer": {"lr": 0.02},
    "dataloader": {"batch_size_per_gpu": 8},
}


@pytest.fixture
def configuration(train_file, tiny_model, tmp_path):
    """A configuration with the original's keys."""
    return {
        "train_dataset": str(train_file),
        "work_dir": str(tmp_path / "model"),
        "model_name": str(tiny_model),
        "trainer_name": "nlp-base-trainer",
        "key_remapping": {"text": "src_txt"},
        "train": TRAIN,
    }


def test_it_is_found_by_its_name_and_its_example_is_valid():
    assert TRAINERS.get("modelscope") is ModelscopeTrainer
    trainer = ModelscopeTrainer(**ModelscopeTrainer.example)
    assert ModelscopeTrainer(**trainer.model_dump()) == trainer


def test_validation_imports_neither_torch_nor_modelscope():
    code = (
        "import sys; from raysandbox.executors.base import TRAINERS; cls = TRAINERS.get('modelscope'); "
        "cls(**cls.example); print({'torch', 'modelscope', 'ray', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_its_paths_have_roles():
    refs = {ref.key: ref.role for ref in path_refs(ModelscopeTrainer, ModelscopeTrainer.example)}
    assert refs == {
        ("train_dataset",): PathRole.INPUT,
        ("work_dir",): PathRole.OUTPUT,
        ("model_name",): PathRole.MODEL,
    }


def test_losses_are_reported_at_every_iteration_and_the_held_out_loss_falls(configuration, eval_file, session):
    configuration["eval_dataset"] = str(eval_file)
    assert ModelscopeTrainer(**configuration).train(session) == configuration["work_dir"]
    losses = session.series("loss")
    assert [step for step, _ in losses] == list(range(1, 13))
    assert losses[-1][1] < 0.8 * losses[0][1]
    assert [epoch for _, epoch in session.series("epoch")][5::6] == [1.0, 2.0]
    assert {rate for _, rate in session.series("lr")} == {0.02}
    assert all(rate > 0 for _, rate in session.series("iterations_per_second"))
    (first, before), (last, after) = session.series("eval_loss")
    assert (first, last) == (0, 12)
    assert after < 0.8 * before


def test_the_model_loads_in_modelscopes_pipeline_and_generates(configuration, session, tmp_path):
    from modelscope.pipelines import pipeline

    from raysandbox.executors.train._modelscope_hub import without_hub

    ModelscopeTrainer(**configuration).train(session)
    work_dir = tmp_path / "model"
    assert {"epoch_1.pth", "epoch_2.pth", "output", "training.json"} <= {path.name for path in work_dir.iterdir()}
    files = [path for path in work_dir.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert not [path for path in files if holds_text(path, {str(work_dir)})]  # equal trainings are shared by trials
    summary = json.loads((work_dir / "training.json").read_text())
    assert summary["iterations"] == 12
    assert summary["last_loss"] == session.series("loss")[-1][1]
    with without_hub():
        generate = pipeline(task="text-generation", model=str(work_dir / "output"), device="cpu")
        (result,) = generate(["the data of"], max_length=12)
    assert result["text"]


def test_a_short_training_logs_to_its_own_file(configuration, session, tmp_path):
    configuration["train"] = {**TRAIN, "max_epochs": 1}
    for name in ("first", "second"):
        ModelscopeTrainer(**{**configuration, "work_dir": str(tmp_path / name)}).train(session)
        (log,) = (tmp_path / name).glob("*.log.json")
        assert json.loads(log.read_text().splitlines()[-1])["loss"] > 0
    assert not [h for h in logging.getLogger("modelscope").handlers if isinstance(h, logging.FileHandler)]


def test_the_seed_decides_the_losses_and_a_held_out_set_does_not(configuration, eval_file, session):
    def losses(**changes):
        session.reports.clear()
        ModelscopeTrainer(**{**configuration, **changes}).train(session)
        return [loss for _, loss in session.series("loss")]

    reference = losses()
    assert losses(eval_dataset=str(eval_file)) == reference
    assert losses(seed=7) != reference


def test_the_originals_demo_settings_run_and_unknown_train_keys_pass_through(configuration, session, caplog):
    settings = ModelscopeTrainer.example["train"]
    configuration["train"] = {**settings, "max_epochs": 1, "train_iters_per_epoch": 20}
    ModelscopeTrainer(**configuration).train(session)
    rates = [rate for _, rate in session.series("lr")]
    assert len(rates) == 20
    assert rates[:5] == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6])
    warnings = [record for record in caplog.records if record.name == "raysandbox.executors.train.modelscope"]
    assert ["fell from 0.0003 to 3e-08 by iteration 9 of 20" in record.getMessage() for record in warnings] == [True]


def test_no_process_is_left_behind(configuration, session):
    ModelscopeTrainer(**configuration).train(session)
    assert multiprocessing.active_children() == []


def test_an_upload_to_the_hub_is_refused(configuration, session):
    hook = {"type": "CheckpointHook", "interval": 1, "push_to_hub": True, "hub_repo_id": "me/model"}
    configuration["train"] = {**TRAIN, "hooks": [hook]}
    with pytest.raises(JobFailed, match="push_to_hub is not supported"):
        ModelscopeTrainer(**configuration).train(session)


def test_settings_left_out_are_the_models_own(configuration, session):
    configuration["train"] = {"max_epochs": 1}
    ModelscopeTrainer(**configuration).train(session)
    assert len(session.series("loss")) == 3  # its configuration.json says batches of 16


def test_a_loss_that_is_not_finite_fails_with_the_iteration(configuration, session, tmp_path):
    configuration["train"] = {**TRAIN, "optimizer": {"type": "SGD", "lr": 1e30}}
    with pytest.raises(JobFailed, match=r"the loss is nan at iteration \d+ \(epoch 1\): lower train\.optimizer\.lr"):
        ModelscopeTrainer(**configuration).train(session)
    assert not (tmp_path / "model").exists()


def test_no_data_is_an_error_before_the_model_is_looked_at(configuration, session, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(JobFailed, match=r"train_dataset: .*empty\.jsonl holds no rows to train on"):
        ModelscopeTrainer(**{**configuration, "train_dataset": str(empty), "model_name": "no/model"}).train(session)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_fewer_rows_than_a_dropped_batch_are_an_error(configuration, session):
    loader = {"batch_size_per_gpu": 100, "workers_per_gpu": 0, "drop_last": True}
    configuration["train"] = {**TRAIN, "dataloader": loader}
    with pytest.raises(JobFailed, match="made no iteration"):
        ModelscopeTrainer(**configuration).train(session)


def test_hooks_without_a_checkpoint_are_an_error(configuration, session):
    configuration["train"] = {**TRAIN, "max_epochs": 1, "hooks": [{"type": "IterTimerHook"}]}
    with pytest.raises(JobFailed, match=r"saved no model: train\.hooks needs"):
        ModelscopeTrainer(**configuration).train(session)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_name", "/no/such/model", "the directory /no/such/model does not exist"),
        ("trainer_name", "no-such-trainer", "cannot build the trainer 'no-such-trainer'"),
    ],
)
def test_unknown_names_are_named(configuration, session, key, value, message):
    with pytest.raises(JobFailed, match=message):
        ModelscopeTrainer(**{**configuration, key: value}).train(session)


def test_a_hub_id_that_is_not_cached_fails_at_once(configuration, session, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    name = "iic/nlp_gpt3_text-generation_chinese-base"
    started = time.perf_counter()
    with pytest.raises(JobFailed, match=f"'{name}' is neither a local directory nor .*cache .*pass a local path"):
        ModelscopeTrainer(**{**configuration, "model_name": name, "allow_download": False}).train(session)
    assert time.perf_counter() - started < 2


def test_a_megatron_model_is_refused(configuration, session, tiny_model, tmp_path):
    model = tmp_path / "megatron"
    model.mkdir()
    settings = json.loads((tiny_model / "configuration.json").read_text())
    (model / "configuration.json").write_text(json.dumps({**settings, "megatron": {"world_size": 1}}))
    with pytest.raises(JobFailed, match="is a Megatron model"):
        ModelscopeTrainer(**{**configuration, "model_name": str(model)}).train(session)


def test_without_modelscope_one_line_says_what_to_install(configuration, session, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope.trainers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'raysandbox\[modelscope\]'"):
        ModelscopeTrainer(**configuration).train(session)
