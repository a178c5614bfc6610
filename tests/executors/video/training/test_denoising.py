"""The task of each family, against what its pipeline does while generating."""

from types import SimpleNamespace

import pytest

from raysandbox.core.errors import UserError
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.layout import Layout, PipelineSource, read_layout
from raysandbox.executors._video.models.pipelines import generate, load_encoders, load_pipeline
from raysandbox.executors._video.models.prompts_encoding import encode_prompts
from raysandbox.executors._video.options import GenerationOptions
from raysandbox.executors._video.training.denoising import TRAINABLE, check_trainable, denoising_of, mean_squares
from tests.executors.video.tiny_pipelines import SIZES

torch = pytest.importorskip("torch")

FAMILIES = sorted(SIZES)
FLOWS = [name for name in FAMILIES if name != "cogvideox"]


@pytest.fixture(scope="module")
def tasks(tiny_models):
    """From a family to its pipeline and its task."""
    made = {}

    def task(name):
        if name not in made:
            frames, height, width = SIZES[name]
            pipe = load_pipeline(PipelineSource(str(tiny_models(name))), "cpu", GenerationOptions(dtype="fp32"))
            layout = read_layout(tiny_models(name))
            made[name] = pipe, denoising_of(layout, pipe.transformer, pipe.scheduler, (frames, height, width))
        return made[name]

    return task


class Seen(Exception):
    """Ends a generation at the transformer."""


def call_of(pipe, model, name, monkeypatch):
    """What the pipeline first calls its transformer with, and the embeddings of the prompt that it was given."""
    frames, height, width = SIZES[name]
    family = family_of(model)
    options = GenerationOptions(
        dtype="fp32", height=height, width=width, num_frames=frames, num_inference_steps=2, guidance_scale=1.0
    )
    encoders = load_encoders(PipelineSource(model), "cpu", options)
    encoded = encode_prompts(encoders, family, "a cat", options)

    def seen(*arguments, **named):
        raise Seen(arguments, named)

    monkeypatch.setattr(pipe.transformer, "forward", seen)
    with pytest.raises(Seen) as found:
        generate(pipe, family, options, 0, prompt=None, encoded=encoded)
    arguments, named = found.value.args
    if arguments:
        named |= dict(zip(("hidden_states", "timestep"), arguments, strict=True))
    return named, encoded


@pytest.mark.parametrize("name", FAMILIES)
def test_the_transformer_is_called_as_while_generating(tasks, tiny_models, name, monkeypatch):
    pipe, task = tasks(name)
    theirs, encoded = call_of(pipe, str(tiny_models(name)), name, monkeypatch)
    latents = theirs["hidden_states"]
    size = {"ltx": (2, 1, 1), "cogvideox": (latents.shape[1], *latents.shape[3:])}.get(name, latents.shape[2:])
    noised = SimpleNamespace(latents=latents, timestep=theirs["timestep"], target=latents)
    ours = task.arguments(noised, encoded, tuple(size))
    optional = {name for name, value in theirs.items() if value is None} | {"return_dict"}
    assert set(ours) == set(theirs) - optional
    for key in set(ours) - {"guidance"}:  # which is a choice of the user's
        mine, other = ours[key], theirs[key]
        if key == "image_rotary_emb":
            assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
        elif isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other.reshape(mine.shape))
        else:
            assert mine == other


@pytest.mark.parametrize("inverted", [False, True])  # as Mochi's
@pytest.mark.parametrize("name", FLOWS)
def test_the_target_leads_back_in_one_step_of_the_scheduler(tasks, name, inverted):
    pipe, task = tasks(name)
    settings = {"shift": 1.0, "use_dynamic_shifting": False, "invert_sigmas": inverted}
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **settings)
    own = type(task)(pipe.transformer, scheduler, task.pixels)
    size = (3, 2, 2)
    clean = own.arranged(torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(0)))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noised = own.noised(clean, noise, torch.tensor([0.4]), size)
    scheduler.set_timesteps(sigmas=[float(own.sigma(torch.tensor([0.4]), size))])
    (timestep,) = scheduler.timesteps
    assert torch.allclose(timestep, noised.timestep, atol=1e-3)
    back = scheduler.step(noised.target, timestep, noised.latents, return_dict=False)[0]
    assert torch.allclose(back, clean, atol=1e-5)


def test_the_target_of_a_diffusion_leads_back_too(tasks):
    from diffusers import CogVideoXDDIMScheduler

    pipe, task = tasks("cogvideox")
    clean = task.arranged(torch.randn(1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    for kind in ("v_prediction", "epsilon"):
        scheduler = CogVideoXDDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
        own = type(task)(task.transformer, scheduler, task.pixels)
        noised = own.noised(clean, noise, torch.tensor([0.5]), (3, 2, 2))
        scheduler.set_timesteps(1000)
        found = scheduler.step(noised.target, int(noised.timestep), noised.latents)
        assert torch.allclose(found.pred_original_sample, clean, atol=1e-3)


def test_the_share_of_noise_is_shifted_as_the_scheduler_does(tasks):
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    density = torch.linspace(0, 0.999, 7)
    steps, size = (density * 1000).long(), (2, 4, 4)
    pipe, easyanimate = tasks("easyanimate")
    shifted = FlowMatchEulerDiscreteScheduler(shift=3.0)
    expected = shifted.sigmas[steps]
    assert torch.allclose(type(easyanimate)(pipe.transformer, shifted, (9, 32, 32)).sigma(density, size), expected)
    other = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    assert torch.allclose(type(easyanimate)(pipe.transformer, other, (9, 32, 32)).sigma(density, size), expected)

    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for name, mu in (("easyanimate", 1.0), ("ltx", 0.5 - 224 * 0.65 / 3840)):  # 32 positions in the latter
        own = type(tasks(name)[1])(pipe.transformer, dynamic, (9, 32, 32)).sigma(density, size)
        dynamic.set_timesteps(1000, mu=mu)
        assert torch.allclose(own, dynamic.sigmas[:-1][steps], atol=1e-6)


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_share_of_noise_ends_where_the_scheduler_does(tasks, kind):
    import diffusers

    more = {"use_flow_sigmas": True} if kind.startswith("UniPC") else {"base_shift": 0.95, "max_shift": 2.05}
    scheduler = getattr(diffusers, kind)(use_dynamic_shifting=True, shift_terminal=0.1, **more)
    pipe, ltx = tasks("ltx")
    own, size = type(ltx)(pipe.transformer, scheduler, (9, 32, 32)), (2, 4, 4)
    density = torch.tensor([0.999, 0.0, 0.5])
    table = diffusers.FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    table.set_timesteps(1000, mu=own.shift_parameter(size))
    assert torch.allclose(own.sigma(density, size), table.sigmas[(density * 1000).long()], atol=1e-4)
    assert own.sigma(density, size)[0].item() == pytest.approx(0.1)


def test_wan_is_told_the_time_of_each_token_where_it_wants_to(tasks):
    _, task = tasks("wan")
    own = type(task)(task.transformer, task.scheduler, task.pixels, time_per_token=True)
    noised = SimpleNamespace(latents=torch.zeros(2, 4, 3, 4, 4), timestep=torch.tensor([1.0, 2.0]))
    arguments = own.arguments(noised, {"prompt_embeds": None}, (3, 4, 4))
    assert arguments["timestep"].tolist() == [[1.0] * 12, [2.0] * 12]


def test_frames_of_cogvideox_are_filled_up_before_the_first(tasks):
    _, task = tasks("cogvideox")
    own = type(task)(SimpleNamespace(config=SimpleNamespace(patch_size_t=2)), task.scheduler, task.pixels)
    latents = torch.arange(3.0).reshape(1, 1, 3, 1, 1)
    assert own.arranged(latents).flatten().tolist() == [0, 0, 1, 2]


def test_a_scheduler_of_another_kind_is_refused(tasks):
    from diffusers import DDIMScheduler

    pipe, task = tasks("easyanimate")
    with pytest.raises(UserError, match="DDIMScheduler does no flow matching"):
        type(task)(pipe.transformer, DDIMScheduler(), task.pixels)
    with pytest.raises(UserError, match="predicts 'sample'"):
        type(tasks("cogvideox")[1])(pipe.transformer, DDIMScheduler(prediction_type="sample"), task.pixels)


def test_families_that_are_not_known_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"AllegroPipeline cannot be trained here; those that can are EasyAnimate"):
        check_trainable(Layout(tmp_path, "AllegroPipeline", {}, {}))
    with pytest.raises(UserError, match="two transformers"):
        check_trainable(Layout(tmp_path, "WanPipeline", {"transformer_2": ("diffusers", "Wan")}, {}))
    assert len(TRAINABLE) == 7


def test_differences_above_a_bound_do_not_count():
    predicted, target = torch.tensor([[1.0, 60.0], [2.0, 2.0]]), torch.zeros(2, 2)
    assert mean_squares(predicted, target, 50).tolist() == [0.5, 4.0]
    assert mean_squares(predicted, target, None).tolist() == [1800.5, 4.0]
    for broken in (float("nan"), float("inf")):
        assert not mean_squares(torch.tensor([[broken, 1.0]]), torch.zeros(1, 2), 50).isfinite().all()
