"""Videos of a model of diffusers: the same bytes however they are made, and made again only if something counts."""

import json
import pickle
import pkgutil
import warnings
from pathlib import Path

import pytest
import yaml

from raysandbox.core import keys as core_keys
from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors._video import models
from raysandbox.executors._video.options import GenerationOptions
from raysandbox.executors.infer.diffusers import DiffusersInference, PipelineMaker
from raysandbox.hooks.infer_model import InferModelHook
from tests.executors.video.in_process import InProcessSession, InProcessWorkers

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from raysandbox.executors._video.models.tiny import make_tiny_easyanimate

    return make_tiny_easyanimate(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def make(tmp_path_factory, model):
    """Runs a generation of a folder's name; returns the session and the videos by file."""
    base = tmp_path_factory.mktemp("generations")
    (base / "prompts.txt").write_text("a cat\na dog\n")

    def run(name, *, workers=None, session=None, use_cache=False, **more):
        session = session or InProcessSession(base / name, workers or InProcessWorkers(), use_cache=use_cache)
        config = {
            "model": str(model),
            "prompts": str(base / "prompts.txt"),
            "videos_per_prompt": 1,
            "output_dir": str(base / name / "videos"),
            "height": 32,
            "width": 32,
            "num_frames": 5,
            "num_inference_steps": 2,
            "dtype": "fp32",
            "contact_sheet": False,
            **more,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of diffusers, about itself
            folder = Path(DiffusersInference(**config).infer(session))
        return session, {path.name: path.read_bytes() for path in folder.glob("*.mp4")}

    return run


@pytest.fixture(scope="module")
def expected(make):
    return make("plain")[1]


def lora_file(model: Path, path: Path, *, zero: bool) -> Path:
    import torch

    from raysandbox.executors._video.models.lora import add_lora, lora_state, save_lora
    from raysandbox.executors._video.models.pipelines import PipelineSource, load_transformer

    transformer = load_transformer(PipelineSource(str(model)), "cpu", "fp32")
    add_lora(transformer, 4, 4.0, None, 0)
    state = lora_state(transformer)
    if not zero:
        torch.manual_seed(0)
        state = {name: torch.randn_like(tensor) for name, tensor in state.items()}
    save_lora(path, state, rank=4, alpha=4.0, about={})
    return path


def test_videos_of_every_prompt(expected):
    assert sorted(expected) == ["a cat-0.mp4", "a dog-0.mp4"]
    assert len(set(expected.values())) == 2


@pytest.mark.parametrize("neutral", [{"encode_prompts_first": False}, {"vae_slicing": True}, {"offload": "model"}])
def test_what_is_neutral_changes_no_bit(make, expected, neutral):
    assert make(f"neutral{next(iter(neutral))}", **neutral)[1] == expected


def test_order_and_workers_change_no_bit(make, expected):
    _, videos = make("more", workers=InProcessWorkers(2, 3), videos_per_prompt=2)
    assert len(videos) == 4
    assert expected.items() <= videos.items()


def test_only_what_counts_makes_videos_again(make, expected, model, tmp_path):
    session, _ = make("again")

    def made(**change):
        before = len(session.told("unit_done"))
        make("again", session=session, **change)
        return len(session.told("unit_done")) - before

    assert made() == 0
    assert made(encode_prompts_first=False, offload="model", vae_slicing=True) == 0
    assert made(lora_weight=0.5) == 0  # there is no LoRA
    assert made(num_inference_steps=3) == 2
    assert made(num_inference_steps=3, fps=3) == 2
    lora = lora_file(model, tmp_path / "lora.safetensors", zero=True)
    assert made(lora_path=str(lora)) == 2
    assert made(lora_path=str(lora), lora_weight=0.5) == 2
    assert made() == 0  # a LoRA of zeros left the bytes that are recorded for this, too
    assert made(seed=1) == 2
    assert made() == 2


# A change of every option but those that leave the videos as they are.
CHANGES = {
    "dtype": "fp32",
    "vae_tiling": True,
    "attention_backend": "native",
    "compile": True,
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "fps": 3,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "negative_prompt": "blurry",
    "arguments": {"guidance_rescale": 0.5},
    "lora_weight": 0.5,
}
NEUTRAL = {"offload": "model", "vae_slicing": True, "encode_prompts_first": False}
OF_ENCODING = {"dtype", "guidance_scale", "negative_prompt", "arguments"}


@pytest.fixture
def keys(model, tmp_path):
    """The keys of the videos and of the encoded prompts of a configuration, as text."""
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(b"weights")
    session = InProcessSession(tmp_path / "keys")

    def of(**change) -> tuple[str, str]:
        made = DiffusersInference(model=str(model), prompts="p.txt", lora_path=str(lora), **change)
        prepare = made._prepare(session) or made.model_copy(update={"encode_prompts_first": True})._prepare(session)
        return json.dumps(made._identity(session)), json.dumps(prepare.identity)

    return of


def test_every_option_is_in_the_key_or_neutral():
    assert {*CHANGES, *NEUTRAL} == set(GenerationOptions.model_fields)


@pytest.mark.parametrize(("name", "value"), [*CHANGES.items(), *NEUTRAL.items()])
def test_keys_follow_options(keys, name, value):
    before, after = keys(), keys(**{name: value})
    assert (before[0] == after[0]) == (name in NEUTRAL)
    assert (before[1] == after[1]) == (name not in OF_ENCODING)


_MODELS = "raysandbox.executors._video.models"
_ENCODES = {f"{_MODELS}.{name}" for name in ("layout", "families", "pipelines", "prompts_encoding")}
_ENCODES |= {"raysandbox.executors._video.generation.encoded_prompts"}
_MAKES = {f"{_MODELS}.{module.name}" for module in pkgutil.iter_modules(models.__path__) if module.name != "tiny"}
_MAKES |= {"raysandbox.executors.infer.diffusers", "raysandbox.executors._video.generation.generating"}


@pytest.mark.parametrize("module", sorted({*_ENCODES, *_MAKES, f"{_MODELS}.tiny"}))
def test_keys_follow_the_code_that_computes(keys, monkeypatch, module):
    before, digest_of = keys(), core_keys._file_digest
    monkeypatch.setattr(core_keys, "_file_digest", lambda name: "changed" if name == module else digest_of(name))
    after = keys()
    assert (before[0] != after[0]) == (module in {*_ENCODES, *_MAKES})
    assert (before[1] != after[1]) == (module in _ENCODES)


@pytest.mark.parametrize("library", ["torch", "transformers", "diffusers", "peft"])
def test_keys_follow_libraries(keys, monkeypatch, library):
    before, version = keys(), core_keys.version
    monkeypatch.setattr(core_keys, "version", lambda name: "0" if name == library else version(name))
    after = keys()
    assert before[0] != after[0]
    assert (before[1] != after[1]) == (library != "peft")


def test_keys_follow_the_settings_beside_a_lora(keys, tmp_path):
    raw = {"lora_path": str(tmp_path / "lora.safetensors")}
    before, around = keys(), DiffusersInference.surroundings(raw)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')
    after = keys()
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert around is None
    assert DiffusersInference.surroundings(raw) is not None
    assert DiffusersInference.surroundings({"lora_path": str(tmp_path)}) is None  # its files are the input's


def test_encoded_prompts_that_other_nodes_keep_to_themselves_are_missed(make, tmp_path, monkeypatch):
    from raysandbox.executors._video.generation import generating

    class Elsewhere(InProcessWorkers):
        def map(self, work, units, **options):
            for index, result in super().map(work, units, **options):
                Path(units[index].target).unlink()
                yield index, result

    monkeypatch.setattr(generating, "_PATIENCE_S", 0.0)
    session = InProcessSession(tmp_path, Elsewhere())
    with pytest.raises(JobFailed, match=r"an encoded prompt that a worker wrote is not at .* cache_dir must lie on"):
        make("elsewhere", session=session)
    assert len(session.workers.done) == 1


def test_another_model_at_the_same_place_makes_them_again(make, model, tmp_path):
    from raysandbox.executors._video.models.tiny import make_tiny_easyanimate

    session, first = make("swapped", model=str(make_tiny_easyanimate(tmp_path / "model", seed=1)))
    make_tiny_easyanimate(tmp_path / "model", seed=2)
    _, second = make("swapped", session=session, model=str(tmp_path / "model"))
    assert len(session.told("unit_done")) == 4
    assert not set(first.values()) & set(second.values())


def test_a_lora_of_zeros_changes_no_bit_and_another_one_does(make, expected, model, tmp_path):
    zeros = lora_file(model, tmp_path / "zeros.safetensors", zero=True)
    assert make("zeros", lora_path=str(zeros))[1] == expected
    other = lora_file(model, tmp_path / "checkpoint-7.safetensors", zero=False)
    _, changed = make("other", lora_path=str(tmp_path))
    assert not set(changed.values()) & set(expected.values())
    assert make("weightless", lora_path=str(other), lora_weight=0.0)[1] == expected


def test_prompts_are_encoded_once(make, tmp_path):
    session, first = make("encoded", use_cache=True)
    assert session.metrics["prompts_encoded"] == 2
    assert session.workers.works[-1].maker.encoders is False
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in session.cache_dir.rglob("*.safetensors"))
    make("encoded", session=session, use_cache=True, videos_per_prompt=2, seed=1)
    assert session.metrics["prompts_encoded"] == 0
    make("encoded", session=session, use_cache=True, negative_prompt="blurry")
    assert session.metrics["prompts_encoded"] == 2
    # a damaged file is named; without the cache it is made anew
    for path in session.cache_dir.rglob("*.safetensors"):
        path.write_bytes(b"torn")
    with pytest.raises(JobFailed, match=r"encoded prompt .* cannot be read here.*--no-cache"):
        make("encoded", session=session, seed=2)
    session.use_cache = False
    assert make("encoded", session=session)[1] == first


def test_a_prompt_that_cannot_be_encoded_costs_its_videos_only(make, monkeypatch):
    from raysandbox.executors._video.generation import encoded_prompts

    real = encoded_prompts.encode_prompts

    def encode(pipe, family, prompt, options):
        if prompt == "a dog":
            raise JobFailed("the GPU has no memory for the text encoder")
        return real(pipe, family, prompt, options)

    monkeypatch.setattr(encoded_prompts, "encode_prompts", encode)
    session, videos = make("unencoded", max_failed=1)
    assert list(videos) == ["a cat-0.mp4"]
    (event,) = session.told("unit_failed")
    assert event["file"] == "a dog-0.mp4"
    assert event["error"] == "its prompt was not encoded: the GPU has no memory for the text encoder"


def test_a_lora_of_another_model_is_refused_before_anything_is_made(make, model, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file(
        {
            "transformer.nowhere.lora_A.weight": torch.zeros(4, 8),
            "transformer.nowhere.lora_B.weight": torch.zeros(8, 4),
        },
        tmp_path / "wrong.safetensors",
    )
    with pytest.raises(UserError, match=r"lora_path.*wrong\.safetensors"):
        make("wrong", lora_path=str(tmp_path / "wrong.safetensors"))
    with pytest.raises(UserError, match="lora_path: there is nothing at"):
        make("wrong", lora_path=str(tmp_path / "absent.safetensors"))


def test_arguments_that_the_pipeline_has_not_end_the_work_at_once(make, tmp_path):
    session = InProcessSession(tmp_path)
    with pytest.raises(UserError, match="did you mean 'guidance_rescale'"):
        make("arguments", session=session, arguments={"guidance_rescal": 0.5})
    assert not session.told("unit_failed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 50}, "height is 50: EasyAnimatePipeline needs a multiple of 16 (set 48 or 64)"),
        ({"width": 40}, "width is 40"),
        ({"num_frames": 7}, "num_frames is 7"),
    ],
)
def test_sizes_that_do_not_fit_are_seen_before_anything_runs(model, change, message):
    import re

    with pytest.raises(ValueError, match=re.escape(message)):
        DiffusersInference(model=str(model), prompts="prompts.txt", **change)


def test_a_model_that_lacks_files_is_seen_before_anything_runs(model, tmp_path):
    import shutil

    assert DiffusersInference.missing_weights({"model": str(model)}) == {}
    assert "not on this machine" in DiffusersInference.missing_weights({"model": "some/model"})["model"]
    shutil.copytree(model, tmp_path / "broken")
    next((tmp_path / "broken" / "vae").glob("*.safetensors")).unlink()
    assert "lacks vae/" in DiffusersInference.missing_weights({"model": str(tmp_path / "broken")})["model"]
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in DiffusersInference.missing_weights({"model": str(tmp_path / "empty")})["model"]
    DiffusersInference(model=str(tmp_path / "empty"), prompts="p.txt")  # said above, and not twice


def test_a_model_that_is_no_model_ends_the_job_with_its_name(make, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=r"model: .*model_index\.json"):
        make("no model", model=str(tmp_path))


def test_workers_get_whole_paths(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    made = DiffusersInference(model=model.name, prompts="p.txt", transformer_path="other")
    assert made._source().model == str(model)
    assert made._source().transformer == str(model.parent / "other")
    assert DiffusersInference(model="some/name", prompts="p.txt")._source().model == "some/name"


def test_examples_travel():
    example = yaml.safe_load(yaml.safe_dump(dict(DiffusersInference.example)))
    made = DiffusersInference(**example)
    assert pickle.loads(pickle.dumps(made)) == made
    assert DiffusersInference(**made.model_dump()) == made
    assert InferModelHook.component({"type": "diffusers", **example}) == made
    maker = PipelineMaker(made._source(), made._options(), None, True)
    assert pickle.loads(pickle.dumps(maker)) == maker
    roles = {ref.key[0]: ref.role for ref in path_refs(DiffusersInference, {**example, "transformer_path": "t"})}
    assert roles == {
        "model": PathRole.MODEL,
        "transformer_path": PathRole.INPUT,
        "lora_path": PathRole.INPUT,
        "prompts": PathRole.INPUT,
        "output_dir": PathRole.OUTPUT,
    }
    assert json.loads(made.model_dump_json())["fps"] == 12
