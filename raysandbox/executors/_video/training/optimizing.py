"""The optimizer of a LoRA's weights, and what the workers of a training tell each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysandbox.executors._video.training.options import TrainingOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Optimizing", "Together"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Together:
    """The workers that train together; torch.distributed is set up where there are several.

    Attributes:
        rank: number of this worker.
        size: how many there are.
        device: where their tensors are.
    """

    rank: int
    size: int
    device: str

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Puts the mean over the workers into tensors of one dtype, with one exchange."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.reshape(tensor.shape))

    def told(self, number: int) -> int:
        """The number that the first worker has."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        value = torch.tensor([number], device=self.device)
        dist.broadcast(value, 0)
        return int(value.item())

    def meet(self) -> None:
        """Returns when all workers are here; raises after the process group's timeout."""
        self.told(0)


@dataclass(frozen=True)
class Optimizing:
    """AdamW with clipped gradients, and loss scaling for fp16.

    Attributes:
        weights: of the LoRA, by name; fp32.
        optimizer: of torch.
        scaler: of torch; does nothing but for fp16.
        max_grad_norm: gradients are scaled down to it.
    """

    weights: Mapping[str, Tensor]
    optimizer: Any
    scaler: Any
    max_grad_norm: float

    @classmethod
    def of(cls, transformer: Any, options: TrainingOptions, device: str) -> Optimizing:
        """For the weights of a transformer that are to be trained."""
        import torch

        weights = {name: weight for name, weight in transformer.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(weights.values(), options.learning_rate, weight_decay=options.weight_decay)
        scaler = torch.amp.GradScaler(device.split(":")[0], enabled=options.dtype == "fp16")
        return cls(weights, optimizer, scaler, options.max_grad_norm)

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients."""
        self.scaler.scale(loss).backward()

    def gradients(self) -> list[Tensor]:
        """The gradients as they are, zero where a weight has none."""
        import torch

        for weight in self.weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]

    def step(self, rate: float) -> float:
        """Changes the weights and forgets the gradients; returns the norm that these had."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Weights and moments, for a checkpoint."""
        found = {f"weight/{name}": weight for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            known = self.optimizer.state.get(weight, {})
            found |= {f"{moment}/{name}": known[moment] for moment in _MOMENTS if moment in known}
        return found

    def extra(self) -> dict[str, float]:
        """Numbers that belong to the state."""
        steps = [float(known["step"]) for known in self.optimizer.state.values()]
        scaler = {name: float(value) for name, value in self.scaler.state_dict().items()}
        return {"steps": max(steps, default=0.0), **scaler}

    def load(self, state: Mapping[str, Tensor], extra: Mapping[str, float]) -> None:
        """Takes up a state."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[f"weight/{name}"])
                moments = {moment: state.get(f"{moment}/{name}") for moment in _MOMENTS}
                known = {moment: value.to(weight.device) for moment, value in moments.items() if value is not None}
                if known:
                    self.optimizer.state[weight] = {"step": torch.tensor(extra["steps"]), **known}
        scaler = {name: value for name, value in extra.items() if name != "steps"}
        if scaler:
            counts = {name: int(scaler[name]) for name in ("growth_interval", "_growth_tracker")}
            self.scaler.load_state_dict({**scaler, **counts})
