"""Rule 3: pickles that come as weights, caches or data are refused, and none of them runs."""

import json
import shutil
from pathlib import Path

import pytest

from raysandbox.core.errors import SandboxError, UserError
from tests.executors.conftest import modelscope_stack, tiny_model  # noqa: F401 - fixtures
from tests.executors.tiny_language_models import llama
from tests.executors.video.tiny_pipelines import tiny_model as tiny_video_model
from tests.ops.tiny_models import image_classifier
from tests.security.traps import WEIGHTS, as_npz, as_torch, as_torchscript, plain, springs


@pytest.fixture
def mark(tmp_path: Path):
    """What must not exist in the end."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "the pickle was run"


@pytest.fixture(scope="module")
def tiny_ltx(tmp_path_factory):
    """A video model."""
    return tiny_video_model("ltx", tmp_path_factory.mktemp("models") / "ltx")


def without_safetensors(folder: Path, name: str) -> Path:
    """A model's folder without its good weights; returns where others are looked for."""
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    return folder / name


def test_the_traps_work(tmp_path):
    assert springs(tmp_path / "trap.pkl")


@pytest.mark.parametrize("trap", WEIGHTS)
def test_networks_of_transformers(tmp_path, mark, trap):
    from transformers import AutoModelForImageClassification

    from raysandbox.ops.pretrained import Source, load_network

    folder = Path(image_classifier(tmp_path / "vit"))
    trap(without_safetensors(folder, "pytorch_model.bin"), mark)
    with pytest.raises(UserError, match=r"^op: model: "):
        load_network(Source("op: model", str(folder), "cpu", 1), AutoModelForImageClassification)


@pytest.mark.parametrize("trap", WEIGHTS)
def test_language_models(tmp_path, mark, trap):
    from raysandbox.executors._causal_lm import LanguageModel

    folder = Path(llama(tmp_path / "llama", ["a b c"]))
    trap(without_safetensors(folder, "pytorch_model.bin"), mark)
    with pytest.raises(UserError, match=r"^model: "):
        LanguageModel(str(folder), "huggingface").load("cpu")


@pytest.mark.parametrize("trap", WEIGHTS)
def test_language_models_of_modelscope(tmp_path, mark, trap, tiny_model):  # noqa: F811
    from raysandbox.executors._causal_lm import LanguageModel

    folder = shutil.copytree(tiny_model, tmp_path / "gpt3")
    trap(without_safetensors(folder, "pytorch_model.bin"), mark)
    with pytest.raises(UserError, match=r"^model: "):
        LanguageModel(str(folder), "modelscope").load("cpu")


@pytest.mark.parametrize("trap", WEIGHTS)
def test_trainings_of_modelscope(tmp_path, mark, trap, tiny_model):  # noqa: F811
    from raysandbox.executors.train.modelscope import ModelscopeTrainer
    from tests.executors.conftest import RecordingSession, texts, write_jsonl

    folder = shutil.copytree(tiny_model, tmp_path / "gpt3")
    trap(without_safetensors(folder, "pytorch_model.bin"), mark)
    data = str(write_jsonl(tmp_path / "train.jsonl", [{"text": text} for text in texts(4)]))
    trainer = ModelscopeTrainer.model_validate(
        {
            "model_name": str(folder),
            "train_dataset": data,
            "work_dir": str(tmp_path / "work"),
            "key_remapping": {"text": "src_txt"},
        }
    )
    with pytest.raises(UserError):
        trainer.train(RecordingSession(tmp_path / "job"))


@pytest.mark.parametrize("trap", WEIGHTS)
@pytest.mark.parametrize(
    ("part", "file"), [("vae", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")]
)
def test_parts_of_video_models(tmp_path, mark, trap, part, file, tiny_ltx):
    from raysandbox.executors._video.models.families import family_of
    from raysandbox.executors._video.models.layout import PipelineSource, read_layout
    from raysandbox.executors._video.models.pipelines import _part

    folder = shutil.copytree(tiny_ltx, tmp_path / "ltx")
    trap(without_safetensors(folder / part, file), mark)
    layout = read_layout(folder)
    with pytest.raises(UserError, match=r"^model: "):
        _part(layout, PipelineSource(str(folder)), part, "fp32", family_of(str(folder)))


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_loras(tmp_path, mark, suffix):
    from raysandbox.executors._video.models.lora_formats import read_lora

    with pytest.raises(UserError, match=r"^lora"):
        read_lora(as_torch(tmp_path / f"lora{suffix}", mark), [])


@pytest.mark.parametrize("trap", [*WEIGHTS, as_torchscript])
def test_detectors(tmp_path, mark, trap):
    from raysandbox.evaluators._inception.features import FeatureWork, Shape

    file = trap(tmp_path / "detector.pt", mark)
    with pytest.raises(UserError, match=r"^detector_path: "):
        FeatureWork(str(file), (), Shape(1, 1, 8, 8)).load("cpu")


@pytest.mark.parametrize("trap", [plain, as_torch])
def test_quality_classifiers(tmp_path, mark, trap):
    from raysandbox.evaluators._spark_model import read_pipeline

    with pytest.raises(UserError):
        read_pipeline(trap(tmp_path / "model.zip", mark))


def test_splitters_of_text(tmp_path, mark):
    from sentencepiece import SentencePieceProcessor

    with pytest.raises((RuntimeError, OSError)):
        SentencePieceProcessor(model_file=str(plain(tmp_path / "zh.sp.model", mark)))


def test_language_identification(tmp_path, mark):
    fasttext = pytest.importorskip("fasttext")
    with pytest.raises(ValueError, match="wrong file format"):
        fasttext.load_model(str(plain(tmp_path / "lid.bin", mark)))


def test_tokenizers(tmp_path, mark):
    from transformers import AutoTokenizer

    from raysandbox.ops.pretrained import Source, load_part

    folder = Path(llama(tmp_path / "llama", ["a b c"]))
    (folder / "tokenizer.json").unlink()
    for name in ("tokenizer.model", "vocab.pkl", "tokenizer.pickle"):
        plain(folder / name, mark)
    with pytest.raises(UserError, match=r"^op: tokenizer: "):
        load_part(Source("op: tokenizer", str(folder), "cpu", 1), AutoTokenizer)


def test_a_planted_cache_is_not_believed(tmp_path, mark):
    from raysandbox.evaluators._inception.cache import ArrayCache

    cache = ArrayCache(tmp_path / "cache")
    file = cache._file("0123abcd")
    file.parent.mkdir(parents=True)
    as_npz(file, mark)
    assert cache.find("0123abcd") is None


@pytest.mark.parametrize("name", ["rows.pkl", "rows.parquet", "rows.jsonl", "rows.arrow"])
def test_data_sets(workspace, mark, name):
    from raysandbox.recipe.api import process

    plain(workspace / name, mark)
    with pytest.raises(SandboxError):
        process({"dataset_path": name, "export_path": "out.jsonl", "process": [{"text_length_filter": {}}]})


CODE = "open({mark!r}, 'w')\n"


def test_code_beside_weights_of_modelscope(tmp_path, mark, tiny_model):  # noqa: F811
    from raysandbox.executors.train.modelscope import ModelscopeTrainer
    from tests.executors.conftest import RecordingSession, texts, write_jsonl

    folder = shutil.copytree(tiny_model, tmp_path / "gpt3")
    for name in ("ms_wrapper.py", "own_code.py", "__init__.py"):
        (folder / name).write_text(CODE.format(mark=str(mark)))
    configuration = json.loads((folder / "configuration.json").read_text())
    data = str(write_jsonl(tmp_path / "train.jsonl", [{"text": text} for text in texts(4)]))
    settings = {"model_name": str(folder), "train_dataset": data, "work_dir": str(tmp_path / "work")}
    settings["key_remapping"] = {"text": "src_txt"}
    for more in ({"allow_remote": True}, {"plugins": ["own_code"]}):
        (folder / "configuration.json").write_text(json.dumps({**configuration, **more}))
        with pytest.raises(UserError, match="plugins or allow_remote"):
            ModelscopeTrainer.model_validate(settings).train(RecordingSession(tmp_path / "job"))


def test_code_beside_weights_needs_the_flag(tmp_path, mark):
    """Rule 4: `trust_remote_code` is off."""
    from transformers import AutoModelForCausalLM

    from raysandbox.ops.pretrained import Source, load_model

    folder = Path(llama(tmp_path / "llama", ["a b c"]))
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "modeling_x.Config", "AutoModelForCausalLM": "modeling_x.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of", "auto_map": auto}))
    (folder / "modeling_x.py").write_text(CODE.format(mark=str(mark)))
    with pytest.raises(UserError, match=r"^op: model: "):
        load_model(Source("op: model", str(folder), "cpu", 1), AutoModelForCausalLM)


def test_code_in_a_video_models_part_is_not_imported(tmp_path, mark, tiny_ltx):
    from raysandbox.executors._video.models.layout import read_layout

    folder = shutil.copytree(tiny_ltx, tmp_path / "ltx")
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["own_code", "Model"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "transformer/own_code.py").write_text(CODE.format(mark=str(mark)))
    with pytest.raises(UserError, match="own_code"):
        read_layout(folder)
