"""Compares the filters with a model with those of the installed Data-Juicer, on tiny random models."""

import warnings

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch
from tests.ops import tiny_clips, tiny_models

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

IMAGE, VIDEO, END = "<__dj__image>", "<__dj__video>", "<|__dj__eoc|>"
STATS = "__dj__stats__"
UNIFORM = {"frame_sampling_method": "uniform"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    named = {
        "v1": "AestheticsPredictorV1",
        "v2-linear": "AestheticsPredictorV2Linear",
        "aesthetics-predictor-v2-relu": "AestheticsPredictorV2ReLU",
    }
    return {
        "classifier": tiny_models.image_classifier(folder / "classifier"),
        "clip": tiny_models.clip(folder / "clip"),
        **{
            name: tiny_models.aesthetics_predictor(folder / name, architecture, tokenizer=True)
            for name, architecture in named.items()
        },
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows with 0 to 4 files, and texts with every shape of chunks."""
    folder = tmp_path_factory.mktemp("media")
    shapes = [(48, 64), (33, 31), (20, 90), (100, 40), (64, 64)]
    images = [
        tiny_clips.save_picture(folder / f"{number}.png", number, height=height, width=width)
        for number, (height, width) in enumerate(shapes)
    ]
    clips = [
        tiny_clips.save_clip(
            folder / f"{number}.mp4", number, seconds=0.5 + number / 2, scenes=1 + number % 3, step=number
        )
        for number in range(5)
    ]
    texts = [
        "no files at all",
        f"{IMAGE}{VIDEO} a red wave {END}",
        f"a sea {IMAGE} {VIDEO}{END} sand and {VIDEO} {IMAGE} stones {END} the end",
        f"{IMAGE}{VIDEO}{IMAGE}{VIDEO} two at once{END}{END}{IMAGE} {VIDEO} " + "very long text " * 20,
        "files that no chunk names",
        f"{IMAGE}{IMAGE}{VIDEO}{VIDEO}<__dj__audio>{END}Ünï cødé 文字 {IMAGE}{IMAGE}{VIDEO}{VIDEO}",
    ]
    counts = [0, 1, 2, 3, 1, 4]
    return [
        {"text": text, "images": images[:count][::-1], "videos": clips[:count]}
        for text, count in zip(texts, counts, strict=True)
    ]


def theirs(name, parameters, rows):
    """Statistics of all rows, and which of them stay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.ops import load_ops

        (operator,) = load_ops([{name: {**parameters, "accelerator": "cpu"}}])
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        columns |= {STATS: [{} for _ in rows], "__dj__context__": [{} for _ in rows]}
        samples = operator.compute_stats_batched(columns, context=True)  # else it closes videos in a way of older PyAV
        return samples[STATS], list(operator.process_batched(samples))


def compare(name, parameters, rows):
    their_stats, their_keep = theirs(name, parameters, rows)
    operator = OPERATORS.get(name)(**parameters)
    batch = Batch(pa.Table.from_pylist(rows), requests=frozenset(operator.frame_requests()))
    stats = operator.compute(batch, operator.load())
    assert set(stats) == set(their_stats[0])
    for key, values in stats.items():
        expected = [list(row[key]) for row in their_stats]
        assert values.value_lengths().to_pylist() == list(map(len, expected))
        np.testing.assert_allclose(values.flatten(), [value for row in expected for value in row], rtol=0, atol=1e-6)
    assert operator.keep(stats).tolist() == [bool(kept) for kept in their_keep]
    return values.flatten().to_numpy()


def bound(scores):
    """A bound that some scores are on either side of."""
    return float(np.median(scores)) + 1e-6


@pytest.mark.parametrize("any_or_all", ["any", "all"])
@pytest.mark.parametrize(("kind", "more"), [("image", {}), ("video", {}), ("video", UNIFORM)])
def test_nsfw(kind, more, any_or_all, models, rows):
    parameters = {"hf_nsfw_model": models["classifier"], "any_or_all": any_or_all, **more}
    scores = compare(f"{kind}_nsfw_filter", parameters, rows)
    compare(f"{kind}_nsfw_filter", {**parameters, "max_score": bound(scores)}, rows)


@pytest.mark.parametrize("reduce_mode", ["avg", "max", "min"])
@pytest.mark.parametrize(
    "frames", [{}, {**UNIFORM, "frame_num": 1}, {**UNIFORM, "frame_num": 2}, {**UNIFORM, "frame_num": 7}]
)
def test_frames_and_reductions(frames, reduce_mode, models, rows):
    compare(
        "video_watermark_filter",
        {"hf_watermark_model": models["classifier"], "reduce_mode": reduce_mode, **frames},
        rows,
    )


def test_image_watermark(models, rows):
    scores = compare("image_watermark_filter", {"hf_watermark_model": models["classifier"]}, rows)
    parameters = {"hf_watermark_model": models["classifier"], "prob_threshold": bound(scores), "reversed_range": True}
    compare("image_watermark_filter", parameters, rows)


@pytest.mark.parametrize("model", ["v1", "v2-linear", "aesthetics-predictor-v2-relu"])
@pytest.mark.parametrize(
    ("kind", "more"), [("image", {}), ("video", {}), ("video", {"frame_sampling_method": "all_keyframes"})]
)
def test_aesthetics(kind, more, model, models, rows):
    pytest.importorskip("aesthetics_predictor", reason="pip install --no-deps simple-aesthetics-predictor")
    scores = compare(f"{kind}_aesthetics_filter", {"hf_scorer_model": models[model], **more}, rows)
    compare(f"{kind}_aesthetics_filter", {"hf_scorer_model": models[model], "min_score": bound(scores), **more}, rows)


@pytest.mark.parametrize("reduce_mode", ["avg", "max", "min"])
@pytest.mark.parametrize("flips", [{}, {"horizontal_flip": True}, {"horizontal_flip": True, "vertical_flip": True}])
@pytest.mark.parametrize(
    ("name", "more"), [("image_text_similarity_filter", {}), ("video_frames_text_similarity_filter", UNIFORM)]
)
def test_similarity(name, more, flips, reduce_mode, models, rows):
    parameters = {"hf_clip": models["clip"], "reduce_mode": reduce_mode, **flips, **more}
    scores = compare(name, parameters, rows)
    compare(name, {**parameters, "min_score": bound(scores), "any_or_all": "all"}, rows)


@pytest.mark.parametrize("name", ["video_nsfw_filter", "video_aesthetics_filter"])
def test_frames_that_stand_in_a_column(name, models, rows):
    model = {"video_nsfw_filter": {"hf_nsfw_model": models["classifier"]}}
    parameters = {**model.get(name, {"hf_scorer_model": models["v2-linear"]}), "frame_field": "frames", "frame_num": 2}
    framed = [{**row, "frames": [row["images"], row["images"][:1]] if row["images"] else []} for row in rows]
    if name == "video_aesthetics_filter":
        pytest.importorskip("aesthetics_predictor", reason="pip install --no-deps simple-aesthetics-predictor")
    compare(name, parameters, framed)
