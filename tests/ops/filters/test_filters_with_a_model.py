"""Filters with a model: batches, chunks of text, resources, and models that cannot be had."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OPERATORS, OpResources
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.ops.pretrained import Network
from raysandbox.ops.special_tokens import Chunk, SpecialTokens
from tests.ops import tiny_clips, tiny_models

GIB = 1 << 30
FIELDS = {
    "image_nsfw_filter": "hf_nsfw_model",
    "video_nsfw_filter": "hf_nsfw_model",
    "image_watermark_filter": "hf_watermark_model",
    "video_watermark_filter": "hf_watermark_model",
    "image_aesthetics_filter": "hf_scorer_model",
    "video_aesthetics_filter": "hf_scorer_model",
    "image_text_similarity_filter": "hf_clip",
    "video_frames_text_similarity_filter": "hf_clip",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    classifier = tiny_models.image_classifier(folder / "classifier")
    return {
        "hf_nsfw_model": classifier,
        "hf_watermark_model": classifier,
        "hf_scorer_model": tiny_models.aesthetics_predictor(folder / "aesthetics-predictor"),
        "hf_clip": tiny_models.clip(folder / "clip"),
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    images = [tiny_clips.save_picture(folder / f"{n}.png", n, height=20 + 9 * n) for n in range(5)]
    videos = [tiny_clips.save_clip(folder / f"{n}.mp4", n, seconds=1 + n / 4, scenes=n + 1) for n in range(3)]
    texts = ["", "<__dj__image><__dj__video> sea <|__dj__eoc|>", "<__dj__image>a<__dj__video>b" * 2, "no marks"]
    counts = [0, 1, 2, 3]
    rows = [(text, images[:count], videos[:count]) for text, count in zip(texts, counts, strict=True)]
    text, image, video = zip(*rows, strict=True)
    return pa.table({"text": text, "images": image, "videos": video})


def statistic(operator, batch, state):
    (values,) = operator.compute(batch, state).values()
    return values.to_pylist()


@pytest.mark.parametrize("name", FIELDS)
def test_batches_do_not_matter(name, models, table):
    operator = OPERATORS.get(name)(**{FIELDS[name]: models[FIELDS[name]], "batch_size": 3})
    state = operator.load()
    whole = statistic(operator, Batch(table), state)
    assert [len(values) > 0 for values in whole[:3]] == [False, True, True]
    one_by_one = [statistic(operator, Batch(table.slice(row, 1)), state)[0] for row in range(table.num_rows)]
    single = OPERATORS.get(name)(**{FIELDS[name]: models[FIELDS[name]], "batch_size": 1})
    for other in (one_by_one, statistic(single, Batch(table), single.load())):
        assert list(map(len, other)) == list(map(len, whole))
        np.testing.assert_allclose(np.concatenate(other), np.concatenate(whole), atol=1e-5)
    assert len({round(value, 4) for values in whole for value in values}) > 1


def test_pictures_of_all_files_go_through_the_model_together(models, table, monkeypatch):
    seen = []
    apply = Network.apply

    def noting(self, pictures, function):
        seen.append(len(pictures))
        return apply(self, pictures, function)

    monkeypatch.setattr(Network, "apply", noting)
    operator = OPERATORS.get("video_nsfw_filter")(
        hf_nsfw_model=models["hf_nsfw_model"], frame_sampling_method="uniform", frame_num=2
    )
    operator.compute(Batch(table), operator.load())
    assert seen == [2 * (0 + 1 + 2 + 3)]


def test_flips_change_what_is_seen(models, table):
    scores = []
    for flips in (
        {},
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"horizontal_flip": True, "vertical_flip": True},
    ):
        operator = OPERATORS.get("image_text_similarity_filter")(hf_clip=models["hf_clip"], **flips)
        scores.append(statistic(operator, Batch(table), operator.load())[1][0])
    assert len(set(scores)) == 4


def test_scores_of_a_predictor_are_divided_where_its_name_says_so(models, table, tmp_path):
    named = OPERATORS.get("image_aesthetics_filter")(hf_scorer_model=models["hf_scorer_model"])
    other = OPERATORS.get("image_aesthetics_filter")(
        hf_scorer_model=tiny_models.aesthetics_predictor(tmp_path / "other")
    )
    tenths = statistic(named, Batch(table), named.load())
    np.testing.assert_allclose(statistic(other, Batch(table), other.load())[3], 10 * np.array(tenths[3]), rtol=1e-6)


def test_a_chunk_whose_files_do_not_exist_scores_nothing(models, table):
    batch = Batch(
        table.set_column(
            0, "text", pa.array(["<__dj__image> a"] * 2 + ["<__dj__image>" * 3 + "a<|__dj__eoc|>b <__dj__image>"] * 2)
        )
    )
    operator = OPERATORS.get("image_text_similarity_filter")(hf_clip=models["hf_clip"])
    scores = statistic(operator, batch, operator.load())
    assert [len(values) for values in scores] == [0, 1, 2, 2]
    assert scores[2][1] == scores[3][1] == 0.0 != scores[3][0]


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("", []),
        ("words <__dj__image>", []),
        ("<__dj__video>", [Chunk("", slice(0, 1))]),
        (
            "<__dj__video> a <__dj__audio> b<|__dj__eoc|> c <|__dj__eoc|> d<__dj__video><__dj__video>",
            [Chunk("a  b", slice(0, 1)), Chunk("d", slice(1, 3))],
        ),
    ],
)
def test_chunks(text, chunks):
    assert SpecialTokens().chunks(text, "video") == chunks
    other = SpecialTokens(video="[v]", eoc="\n")
    assert other.chunks(text.replace("<__dj__video>", "[v]").replace("<|__dj__eoc|>", "\n"), "video") == chunks


def test_stored_frames_are_looked_at_instead_of_videos(models, table):
    frames = [[], [table["images"][3].as_py()], [table["images"][2].as_py(), []], None]
    batch = Batch(table.append_column("frames", pa.array(frames)))
    operator = OPERATORS.get("video_nsfw_filter")(
        hf_nsfw_model=models["hf_nsfw_model"], frame_field="frames", frame_num=2
    )
    assert operator.frame_requests() == ()
    scores = statistic(operator, batch, operator.load())
    assert [len(values) for values in scores] == [0, 1, 2, 0]
    assert scores[2][1] == 0.0
    images = OPERATORS.get("image_nsfw_filter")(hf_nsfw_model=models["hf_nsfw_model"])
    of_images = statistic(images, Batch(table), images.load())
    np.testing.assert_allclose(scores[1][0], (of_images[3][0] + of_images[3][2]) / 2, atol=1e-6)


def test_rows_with_bad_frames_are_named(models, table, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    frames = [[[str(tmp_path / "missing.png")]], [table["images"][1].as_py()], [[], [str(tmp_path / "bad.png")]], []]
    batch = Batch(table.append_column("frames", pa.array(frames)))
    operator = OPERATORS.get("video_nsfw_filter")(hf_nsfw_model=models["hf_nsfw_model"], frame_field="frames")
    with pytest.raises(RowFaults) as caught:
        operator.compute(batch, operator.load())
    assert caught.value.faults.keys() == {0, 2}
    assert "missing.png: no such file" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("parameters", "resources"),
    [
        ({}, OpResources(1, None, GIB, None)),
        ({"accelerator": "cpu", "num_gpus": 1, "num_proc": -1}, OpResources(1, 0, GIB, None)),
        ({"accelerator": "cuda"}, OpResources(1, 1, GIB, None)),
        ({"accelerator": "cuda", "num_gpus": 0.25}, OpResources(1, 0.25, GIB, None)),
        ({"num_cpus": 2, "num_gpus": 0, "num_proc": 4, "memory": "1.5GB"}, OpResources(2, 0, 3 * GIB // 2, 4)),
        ({"memory": 2}, OpResources(1, None, 2 * GIB, None)),
    ],
)
def test_resources(parameters, resources):
    assert OPERATORS.get("video_nsfw_filter")(**parameters).resources() == resources


def test_statistics_are_the_same_wherever_the_model_runs():
    operator = OPERATORS.get("video_watermark_filter")
    assert operator.thresholds() >= {"prob_threshold", "any_or_all", "num_gpus", "batch_size", "memory"}
    assert not operator.thresholds() & {"hf_watermark_model", "frame_num", "reduce_mode"}
    assert operator.needs_model


def test_a_gpu_that_is_insisted_on_must_be_there(models):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="image_nsfw_filter: accelerator is cuda and this process sees no GPU"):
        OPERATORS.get("image_nsfw_filter")(hf_nsfw_model=models["hf_nsfw_model"], accelerator="cuda").load()


def test_models_of_the_hub_that_are_not_here_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    operator = OPERATORS.get("video_nsfw_filter")
    assert "'Falconsai/nsfw_image_detection' is not on this machine" in operator.missing_weights({})["hf_nsfw_model"]
    assert operator.missing_weights({"hf_nsfw_model": "./folder"}) == {}
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    assert operator.missing_weights({"hf_nsfw_model": "a/b"}).keys() == {"hf_nsfw_model"}
    (snapshot / "config.json").write_text("{}")
    assert operator.missing_weights({"hf_nsfw_model": "a/b"}) == {}


def test_a_model_without_a_network_is_one_message(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("nobody there. And more")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    message = (
        "hf_clip: the model 'a/b' is not on this machine and cannot be fetched .*: nobody there .*`hf download a/b`"
    )
    with pytest.raises(UserError, match=message):
        OPERATORS.get("image_text_similarity_filter")(hf_clip="a/b").load()


def test_a_fetched_model_needs_no_network(models, tmp_path, monkeypatch):
    import huggingface_hub

    folder = tmp_path / "models--a--b"
    shutil.copytree(models["hf_nsfw_model"], folder / "snapshots" / "1")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert OPERATORS.get("image_nsfw_filter")(hf_nsfw_model="a/b").load()


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("image_nsfw_filter", "/no/such/folder", "there is no folder /no/such/folder"),
        ("image_nsfw_filter", "hf_clip", "is no AutoModelForImageClassification"),
        ("image_aesthetics_filter", "hf_clip", "is a CLIPModel; known are AestheticsPredictorV1"),
        (
            "image_text_similarity_filter",
            "hf_scorer_model",
            "is a CLIPVisionModel, which does not compare texts with pictures",
        ),
    ],
)
def test_unfit_models_are_refused(name, model, message, models):
    with pytest.raises(UserError, match=message):
        OPERATORS.get(name)(**{FIELDS[name]: models.get(model, model)}).load()


def test_a_model_whose_head_was_not_trained_is_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models["hf_nsfw_model"], tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "classifier" not in key},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"has no weights for classifier\.bias, classifier\.weight"):
        OPERATORS.get("image_nsfw_filter")(hf_nsfw_model=str(folder)).load()
