"""The training loop: a LoRA of a transformer, on 1 to N workers, from prepared latents and embeddings.

Gradients are averaged by one `all_reduce` at the end of a step. A DistributedDataParallel wrapper would
buy nothing: only the LoRA has gradients, accumulation would have to switch its hooks off, and its buckets
change the order of sums.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import JobFailed, WorkerLeaves
from raysandbox.core.keys import digest
from raysandbox.core.runner import TrainSession
from raysandbox.executors._video.models.layout import PipelineSource, fetch, read_layout
from raysandbox.executors._video.models.lora import add_lora, lora_state, save_lora
from raysandbox.executors._video.training.batches import Batch, Example, Examples, clips_of_step
from raysandbox.executors._video.training.checkpoints import FINISHED, Checkpoints, Progressed, checkpoint_name
from raysandbox.executors._video.training.denoising import Denoising, denoising_of, mean_squares
from raysandbox.executors._video.training.optimizing import Optimizing, Together
from raysandbox.executors._video.training.options import TrainingOptions
from raysandbox.executors._video.training.samples import Samples

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Prepared", "train_lora"]

logger = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class Prepared:
    """What the workers get from the driver.

    Attributes:
        key: names model, clips and everything else that the weights depend on, but for the number of workers.
        source: the model.
        output: where checkpoints go.
        clips: to train on.
        held_out: to validate with, may be empty.
        without_caption: embeddings of the empty caption.
        samples: encoded prompts of sample videos.
        execution: names the execution of the job where nothing of earlier ones may be reused, else None.
    """

    key: str
    source: PipelineSource
    output: Path
    clips: tuple[Example, ...]
    held_out: tuple[Example, ...]
    without_caption: Path
    samples: tuple[tuple[str, Path], ...] = ()
    execution: str | None = None


def train_lora(options: TrainingOptions, prepared: Prepared, session: TrainSession) -> None:
    """Trains, or goes on with a training that was interrupted, or finds that it has finished.

    Raises:
        JobFailed: a loss is not finite.
        UserError: the model cannot be trained here.
    """
    options.check_warmup(len(prepared.clips), session.world_size)
    together = Together(session.rank, session.world_size, session.device)
    key = digest([prepared.key, options.clips_per_step(session.world_size)])
    checkpoints = Checkpoints(prepared.output, key, options.keep_last, prepared.execution)
    start = together.told(_start(options, prepared, checkpoints, session) if together.rank == 0 else 0)
    if start == FINISHED:
        return
    run = _Run.begun(options, prepared, session, together, checkpoints)
    if start:
        logger.info("going on after step %d, from %s", start, prepared.output / checkpoint_name(start))
        run.go_back_to(start)
    run.train()


def _start(options: TrainingOptions, prepared: Prepared, checkpoints: Checkpoints, session: TrainSession) -> int:
    """The step to go on from, or `FINISHED`, where the losses are told again: this run has not seen them.

    A finished training whose last checkpoint lacks sample videos is gone on from its last step, to make them.
    """
    start = checkpoints.open()
    if start != FINISHED:
        return start
    found, folder = checkpoints.finished(), prepared.output
    logger.info("%s holds this training, finished; nothing is trained again", folder)
    last = found["steps"]
    if Samples(options, prepared.source, prepared.samples, session.device).lacking(_samples_folder(folder, last)):
        if checkpoints.can_go_on_from(last):
            return last
        logger.warning("%s: videos of sample_prompts cannot be made any more, its last state is gone", folder)
    validation = {int(step): loss for step, loss in found["validation_losses"].items()}
    progress = Progressed(last, found["losses"], validation, timesteps=found["validation_timesteps"])
    _tell_again(options, progress, last, session)
    _warn_of_other_wishes(options, progress, _checkpoint_steps(options, prepared, session.world_size), folder)
    return FINISHED


def _tell_again(options: TrainingOptions, progress: Progressed, steps: int, session: TrainSession) -> None:
    """Reports the losses that an earlier run computed: this one's metrics may not have them."""
    for step, loss in enumerate(progress.losses, start=1):
        session.report({"loss": loss, "lr": options.rate(step, steps)}, step=step)
    for step, loss in progress.validation.items():
        session.report({"validation_loss": loss}, step=step)


def _warn_of_other_wishes(
    options: TrainingOptions, progress: Progressed, checkpoints: Collection[int], folder: Path
) -> None:
    """Says what was asked for only after the steps that are done."""
    done = sorted(step for step in checkpoints if step <= progress.step)
    lost = [str(step) for step in done if not (folder / checkpoint_name(step)).exists()]
    if lost:
        shown = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        logger.warning(
            "%s: the training was done without checkpoints after steps %s (to get them run it with --no-cache)",
            *(folder, shown),
        )
    if progress.validation and progress.timesteps != options.validation_timesteps:
        logger.warning(
            "%s: held-out losses up to step %d are at validation_timesteps %d, not %d, and do not compare with others",
            *(folder, progress.step, progress.timesteps, options.validation_timesteps),
        )


def _samples_folder(output: Path, step: int) -> Path:
    return output / "samples" / f"step-{step}"


def _checkpoint_steps(options: TrainingOptions, prepared: Prepared, workers: int) -> list[int]:
    """The steps after which there is a checkpoint."""
    clips, per_step = len(prepared.clips), options.clips_per_step(workers)
    steps = options.steps(clips, workers)

    def wanted(step: int) -> bool:
        ends_epoch = step * per_step // clips > (step - 1) * per_step // clips
        regular = options.checkpoint_every is not None and step % options.checkpoint_every == 0
        return step == steps or regular or (options.checkpoint_each_epoch and ends_epoch)

    return [step for step in range(1, steps + 1) if wanted(step)]


@dataclass
class _Run:
    """One worker's part of a training.

    Attributes:
        options: numbers of the training.
        prepared: what the driver prepared.
        session: of the worker.
        together: the other workers.
        checkpoints: the output.
        transformer: with the LoRA.
        denoising: the task.
        optimizing: of the LoRA's weights.
        examples: makes batches.
        samples: makes sample videos.
        progress: how far the training is.
    """

    options: TrainingOptions
    prepared: Prepared
    session: TrainSession
    together: Together
    checkpoints: Checkpoints
    transformer: Any
    denoising: Denoising
    optimizing: Optimizing
    examples: Examples
    samples: Samples
    progress: Progressed = field(default_factory=Progressed)

    @classmethod
    def begun(
        cls,
        options: TrainingOptions,
        prepared: Prepared,
        session: TrainSession,
        together: Together,
        checkpoints: Checkpoints,
    ) -> _Run:
        """Loads the transformer and adds a new LoRA."""
        from raysandbox.executors._video.models.pipelines import load_scheduler, load_transformer

        source = prepared.source
        transformer = load_transformer(source, session.device, options.dtype)
        if options.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        add_lora(transformer, options.rank, options.alpha, options.targets, options.seed)
        pixels = (options.num_frames, options.height, options.width)
        layout = read_layout(fetch(source, weights=True), source.key)
        denoising = denoising_of(layout, transformer, load_scheduler(source), pixels)
        examples = Examples(
            prepared.clips, prepared.held_out, prepared.without_caption, options, denoising, session.device
        )
        samples = Samples(options, source, prepared.samples, session.device, together.rank, together.size)
        optimizing = Optimizing.of(transformer, options, session.device)
        return cls(
            options, prepared, session, together, checkpoints, transformer, denoising, optimizing, examples, samples
        )

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.options.steps(len(self.prepared.clips), self.together.size)

    @cached_property
    def checkpoint_steps(self) -> frozenset[int]:
        """The steps after which there is a checkpoint."""
        return frozenset(_checkpoint_steps(self.options, self.prepared, self.together.size))

    def go_back_to(self, step: int) -> None:
        """Takes up the state after a step, and makes its sample videos that are not there."""
        state, self.progress = self.checkpoints.read(step)
        in_passing = step in self.checkpoints.in_passing()
        self.optimizing.load(state, self.progress.extra)
        if self.together.rank == 0:
            _tell_again(self.options, self.progress, self.steps, self.session)
            _warn_of_other_wishes(self.options, self.progress, self.checkpoint_steps, self.prepared.output)
        if not in_passing:
            self._sample(step)

    def train(self) -> None:
        """Does the steps that are left."""
        if not self.progress.step:
            self._validate(0)
        for step in range(self.progress.step + 1, self.steps + 1):
            started = time.perf_counter()
            with _peak(self.session.device) as peak:
                loss, norm, leaving = self._step(step)
            seconds = time.perf_counter() - started
            self.progress.step = step
            self.progress.losses.append(loss)
            self.progress.seconds += seconds
            self._report(step, loss, norm, seconds, peak)
            if step in self.checkpoint_steps:
                self._checkpoint(step)
            if leaving and step < self.steps:
                self._leave(step)
        if self.together.rank == 0:
            self.checkpoints.finish(self._summary())

    def _step(self, step: int) -> tuple[float, float, bool]:
        """Learns from a step's clips.

        Returns:
            the mean loss and the norm of the gradient, over all workers, and whether the node of one must be left.
        """
        import torch

        options, together = self.options, self.together
        own = options.batch_size * options.gradient_accumulation_steps
        chosen = clips_of_step(step, len(self.prepared.clips), own * together.size, options.seed)
        total = torch.zeros((), device=self.session.device)
        for number in range(options.gradient_accumulation_steps):
            first = together.rank * own + number * options.batch_size
            batch = self.examples.training(step, chosen[first : first + options.batch_size], first)
            loss = self._losses(batch).mean() / options.gradient_accumulation_steps
            self.optimizing.backward(loss)
            total += loss.detach()
        leaving = torch.full_like(total, float(self.session.must_leave()))
        together.average([*self.optimizing.gradients(), total, leaving])
        loss = total.item()
        if not math.isfinite(loss):
            raise JobFailed(
                f"the loss is {loss} at step {step}: lower learning_rate, use dtype bf16 instead of fp16, or look for "
                f"broken clips in the data set"
            )
        return loss, self.optimizing.step(options.rate(step, self.steps)), bool(leaving.item())

    def _losses(self, batch: Batch) -> Tensor:
        """The loss of each clip of a batch."""
        with self._precision():
            predicted = self.denoising.predicted(batch.noised, batch.text, batch.size)
        return mean_squares(predicted, batch.noised.target, self.options.drop_above)

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        from raysandbox.executors._video.models.pipelines import torch_dtype

        dtype = torch_dtype(self.options.dtype)
        return torch.autocast(self.session.device.split(":")[0], dtype, enabled=dtype != torch.float32)

    def _validate(self, step: int) -> None:
        """Looks at the held-out clips, each worker at its share of them."""
        import torch

        count = len(self.prepared.held_out)
        if not count:
            return
        total = torch.zeros((), dtype=torch.float64, device=self.session.device)
        with torch.no_grad():
            for clip in range(self.together.rank, count, self.together.size):
                total += self._losses(self.examples.validation(clip)).double().mean()
        self.together.average([total])
        loss = total.item() * self.together.size / count
        if not math.isfinite(loss):
            raise JobFailed(f"validation_dataset: the held-out loss is {loss} after step {step}")
        self.progress.validation[step], self.progress.timesteps = loss, self.options.validation_timesteps
        if self.together.rank == 0:
            self.session.report({"validation_loss": loss}, step=step)

    def _checkpoint(self, step: int) -> None:
        self._validate(step)
        if self.together.rank == 0:
            self._write(step)
            self.checkpoints.forget()
        self._sample(step)

    def _leave(self, step: int) -> None:
        """Writes what it takes to go on elsewhere after a step, which goes again with the next checkpoint."""
        if step not in self.checkpoint_steps and self.together.rank == 0:
            self.checkpoints.pass_by(step)
            self._write(step)
        self.together.meet()
        raise WorkerLeaves(f"the node of a worker is drained; the training goes on after step {step}")

    def _write(self, step: int) -> None:
        self.progress.extra = self.optimizing.extra()
        self.checkpoints.write(self.optimizing.state(), self.progress)
        about = {"step": str(step), "model": self.prepared.source.model, "training": self.checkpoints.key}
        file = self.checkpoints.folder / checkpoint_name(step)
        state = lora_state(self.transformer)
        save_lora(file, state, rank=self.options.rank, alpha=self.options.alpha, about=about)

    def _sample(self, step: int) -> None:
        """Makes the sample videos of a step that are not there, each worker its share, and waits for all."""
        import torch

        if not self.prepared.samples:
            self.together.meet()
            return
        folder = _samples_folder(self.checkpoints.folder, step)
        if self.together.rank == 0:
            self.checkpoints.own("samples")
            self.samples.begin(folder)
        self.together.meet()
        failed = torch.tensor([float(self.samples.write(folder, self.transformer))], device=self.session.device)
        self.together.average([failed])
        if self.together.rank == 0:
            self.session.report({"failed_samples": round(failed.item() * self.together.size)}, step=step)

    def _report(self, step: int, loss: float, norm: float, seconds: float, peak: Sequence[float]) -> None:
        if self.together.rank:
            return
        clips = self.options.clips_per_step(self.together.size)
        metrics = {
            "loss": loss,
            "lr": self.options.rate(step, self.steps),
            "step_seconds": seconds,
            "samples_per_second": clips / max(seconds, 1e-9),
            "epoch": step * clips / len(self.prepared.clips),
        }
        if math.isfinite(norm):  # fp16: not in a step that its scaler leaves out
            metrics["grad_norm"] = norm
        if peak:
            metrics["peak_memory_gb"] = peak[0]
        self.session.report(metrics, step=step)

    def _summary(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "model": self.prepared.source.model,
            "steps": progress.step,
            "clips": len(self.prepared.clips),
            "workers": self.together.size,
            "first_loss": progress.losses[0],
            "last_loss": progress.losses[-1],
            "losses": progress.losses,
            "validation_losses": progress.validation,
            "validation_timesteps": progress.timesteps,
            "seconds": round(progress.seconds, 3),
            "checkpoint": checkpoint_name(progress.step),
        }


class _peak:
    """Measures the most memory of a GPU that torch held in a block, in GB; nothing on a CPU."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._found: list[float] = []

    def __enter__(self) -> list[float]:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        return self._found

    def __exit__(self, *_: object) -> None:
        if self._device.startswith("cuda"):
            import torch

            self._found.append(torch.cuda.max_memory_allocated(self._device) / 1e9)
