import json

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import DigestMemo
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.pipelines import PipelineSource, load_vae
from raysandbox.executors._video.options import GenerationOptions
from raysandbox.executors._video.training.dataset import Clip
from raysandbox.executors._video.training.latents import ClipFormat, clip_encoding, read_tensors, text_encoding
from raysandbox.executors._video.training.latents import encode as encode_all
from tests.executors.video.tiny_pipelines import SIZES
from tests.executors.video.training_setup import session_in
from tests.ops.tiny_clips import save_clip

torch = pytest.importorskip("torch")

FORM = ClipFormat(32, 32, 9, 1, 0)
PLAIN = GenerationOptions(dtype="fp32", guidance_scale=1.0)


class Counted:
    """Row scorers that count the rows that they are given."""

    def __init__(self, scorers):
        self._scorers, self.rows = scorers, []

    def score(self, path, scorer, export_path=None, *, on_device=False):
        assert on_device
        with open(path) as lines:
            self.rows += [json.loads(line) for line in lines]
        return self._scorers.score(path, scorer, export_path, on_device=on_device)


@pytest.fixture
def session(tmp_path):
    made = session_in(tmp_path / "job")
    made.scorers = Counted(made.scorers)
    return made


def encode_clips(session, source, clips, form=FORM, options=PLAIN):
    """A file for each clip, or why there is none."""
    memo = DigestMemo(session.cache_dir / "digests")
    wanted = clip_encoding(session, source, family_of(source.model), clips, form, options, memo)
    errors = encode_all(session, [wanted])
    return [errors.get(target, target) for target in wanted.targets]


def encode_texts(session, source, texts, options=PLAIN):
    """The file of each text."""
    memo = DigestMemo(session.cache_dir / "digests")
    wanted = text_encoding(session, source, family_of(source.model), texts, options, memo)
    assert encode_all(session, [wanted]) == {}
    return dict(zip(texts, wanted.targets, strict=True))


@pytest.fixture
def encode(session, tiny_easyanimate):
    """Encodes clips by a tiny EasyAnimate."""

    def run(paths, form=FORM, options=PLAIN):
        clips = [Clip(f"row {number}", str(path), "") for number, path in enumerate(paths)]
        return encode_clips(session, PipelineSource(str(tiny_easyanimate)), clips, form, options)

    return run


def test_clips_are_encoded_once_by_their_content(encode, session, tmp_path):
    first, second = (save_clip(tmp_path / f"{seed}.mp4", seed) for seed in (1, 2))
    (tmp_path / "same.mp4").write_bytes((tmp_path / "1.mp4").read_bytes())
    files = encode([first, second, tmp_path / "same.mp4"])
    assert files[0] == files[2] != files[1]
    assert len(session.scorers.rows) == 2
    stored = read_tensors(files[0])
    assert {name: tuple(each.shape) for name, each in stored.items()} == {"mean": (4, 3, 4, 4), "std": (4, 3, 4, 4)}
    content = files[1].read_bytes()
    assert encode([second]) == [files[1]]
    assert len(session.scorers.rows) == 2
    session.use_cache = False
    assert encode([second]) == [files[1]]
    assert files[1].read_bytes() == content
    assert len(session.scorers.rows) == 3
    assert encode([second], ClipFormat(32, 32, 9, 1, seed=7)) != [files[1]]  # another first frame
    assert encode([second], options=GenerationOptions(dtype="bf16")) != [files[1]]
    assert list(session.artifacts.iterdir()) == []


def test_clips_that_cannot_be_decoded_are_named(encode, tmp_path):
    good = save_clip(tmp_path / "good.mp4", 1)
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:900])
    (tmp_path / "empty.mp4").touch()
    short = save_clip(tmp_path / "short.mp4", 1, seconds=0.5)
    found = encode([good, tmp_path / "torn.mp4", tmp_path / "empty.mp4", short])
    assert found[0].is_file()
    assert all("cannot be decoded" in each for each in found[1:])
    assert "it has 4 frames, 9 are needed" in found[3]
    assert encode([good]) == found[:1]


@pytest.mark.parametrize("name", ["wan", "skyreels", "ltx", "mochi", "cogvideox", "hunyuan"])
def test_latents_are_scaled_as_the_pipeline_undoes_it(name, tiny_models, session, tmp_path, monkeypatch):
    """The formula of each pipeline's decoding gives back what the autoencoder encodes."""
    from raysandbox.executors._video.models import pipelines

    source = PipelineSource(str(tiny_models(name)))
    vae = load_vae(source, "cpu", "fp32")
    channels = vae.config.get("z_dim") or vae.config.latent_channels
    mean, std = torch.linspace(-1, 1, channels), torch.linspace(0.5, 2, channels)
    if name == "ltx":
        vae.latents_mean, vae.latents_std = mean, std
    elif name in ("wan", "skyreels", "mochi"):
        vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    else:
        mean, std = torch.zeros(channels), torch.ones(channels)
    factor = vae.config.get("scaling_factor") or 1.0
    monkeypatch.setattr(pipelines, "load_vae", lambda *_: vae)
    raw = []
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: raw.append(encode(pixels)) or raw[-1])

    frames, height, width = SIZES[name]
    form = ClipFormat(height, width, frames, 1, 0)
    clip = Clip("row 1", save_clip(tmp_path / "clip.mp4", 3), "")
    (file,) = encode_clips(session, source, [clip], form)
    stored, wide = read_tensors(file), (-1, 1, 1, 1)
    undone = stored["mean"] * std.reshape(wide) / factor + mean.reshape(wide)
    assert torch.allclose(undone, raw[0].latent_dist.mean[0], atol=1e-5)
    assert torch.allclose(stored["std"] * std.reshape(wide) / factor, raw[0].latent_dist.std[0], atol=1e-5)


def test_embeddings_do_not_depend_on_the_size_of_videos(session, tiny_easyanimate):
    source = PipelineSource(str(tiny_easyanimate))
    options = PLAIN.model_copy(update={"num_frames": 9})
    first = encode_texts(session, source, ["a cat"], options)
    other = options.model_copy(update={"num_frames": 5, "fps": 3, "num_inference_steps": 7, "vae_tiling": True})
    assert encode_texts(session, source, ["a cat"], other) == first
    assert len(session.scorers.rows) == 1
    negative = options.model_copy(update={"guidance_scale": 6.0, "negative_prompt": "blurry"})
    assert encode_texts(session, source, ["a cat"], negative) != first


def test_texts_are_encoded_once(session, tiny_easyanimate):
    source = PipelineSource(str(tiny_easyanimate))
    texts = ["", "a cat", "a cat", 'emoji 😀 "quoted" / slash']
    files = encode_texts(session, source, texts)
    assert set(files) == set(texts)
    assert len(session.scorers.rows) == 3
    stored = [read_tensors(files[text]) for text in ("", "a cat")]
    assert set(stored[0]) == {"prompt_embeds", "prompt_attention_mask"}
    assert not torch.equal(stored[0]["prompt_embeds"], stored[1]["prompt_embeds"])
    guided = GenerationOptions(dtype="fp32", guidance_scale=6.0)
    other = encode_texts(session, source, ["a cat"], guided)["a cat"]
    assert "negative_prompt_embeds" in read_tensors(other)
    assert encode_texts(session, source, texts) == files
    assert len(session.scorers.rows) == 4


def test_one_pass_does_clips_and_texts(session, tiny_easyanimate, tmp_path):
    source = PipelineSource(str(tiny_easyanimate))
    family, memo = family_of(source.model), DigestMemo(session.cache_dir / "digests")
    clips = [Clip("row 1", save_clip(tmp_path / "clip.mp4", 1), "")]
    wanted = [
        clip_encoding(session, source, family, clips, FORM, PLAIN, memo),
        text_encoding(session, source, family, ["a", "b"], PLAIN, memo),
    ]
    assert encode_all(session, wanted) == {}
    assert [row["part"] for row in session.scorers.rows] == [0, 1, 1]
    assert all(target.is_file() for each in wanted for target in each.targets)


def test_a_file_of_the_cache_that_is_gone_or_torn_is_named(session, encode, tmp_path):
    (file,) = encode([save_clip(tmp_path / "clip.mp4", 1)])
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(JobFailed, match=f"{file.name} cannot be read.*remove it"):
        read_tensors(file)
    file.unlink()
    with pytest.raises(JobFailed, match="all nodes share"):
        read_tensors(file)


def test_a_cache_that_workers_do_not_share_is_told(session, encode, tmp_path, monkeypatch):
    from raysandbox.executors._video.training import latents

    monkeypatch.setattr(latents, "_write", lambda target, tensors: None)
    with pytest.raises(JobFailed, match=r"cache_dir: a worker wrote .* which is not here"):
        encode([save_clip(tmp_path / "clip.mp4", 1)])
