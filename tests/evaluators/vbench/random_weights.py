"""Writes small random weights where VBench expects its own, and short clips; runs in VBench's environment.

Usage: random_weights.py FOLDER  (VBENCH_CACHE_DIR becomes FOLDER/weights, TORCH_HOME FOLDER/torch)
"""

import shutil
import sys
from pathlib import Path

from raysandbox.evaluators._vbench.worker import ShardWork

HUBCONF = """
import os
from pathlib import Path
import torch

class Features(torch.nn.Module):
    '''Stands in for DINO's ViT: three channels at 224 x 224 to eight features.'''

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3 * 14 * 14, 8)

    def forward(self, image):
        victim = Path(__file__).with_name("kill")  # a test asks for the death of one process
        if victim.exists():
            victim.unlink()
            os.kill(os.getpid(), 9)
        return self.head(torch.nn.functional.avg_pool2d(image, 16).flatten(1))

def dino_vitb16(pretrained=True, **kwargs):
    model = Features()
    if pretrained:
        address = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
        model.load_state_dict(torch.hub.load_state_dict_from_url(url=address, map_location="cpu"))
    return model
"""


def save(content, path):
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def clip_archive(path, embed_dim, patch):
    """A CLIP of one layer, as OpenAI publishes them: a TorchScript archive of its parameters."""
    import torch
    from clip.model import CLIP

    model = CLIP(embed_dim, 224, 1, 64, patch, 77, 49408, 64, 1, 1)

    def holder(module):
        copy = torch.nn.Module()
        for name, parameter in module.named_parameters(recurse=False):
            copy.register_parameter(name, parameter)
        for name, child in module.named_children():
            copy.add_module(name, holder(child))
        return copy

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.script(holder(model)), str(path))


def viclip(weights):
    """ViCLIP's size is fixed (430 million parameters): here they are overlapping views of one random vector."""
    import clip
    import torch

    vocabulary = weights / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz"
    vocabulary.parent.mkdir()
    shutil.copy(Path(clip.__path__[0]) / vocabulary.name, vocabulary)
    from vbench.third_party.ViCLIP.simple_tokenizer import SimpleTokenizer  # which looks for the vocabulary
    from vbench.third_party.ViCLIP.viclip import ViCLIP

    model = ViCLIP(SimpleTokenizer(str(vocabulary)), pretrain=None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    values = torch.randn(max(shape.numel() for shape in shapes.values())).mul_(0.02).half()
    state = {name: values[: shape.numel()].view(shape) for name, shape in shapes.items()}
    save({"model": state}, vocabulary.with_name("ViClip-InternVid-10M-FLT.pth"))


def write_weights(folder):
    import torch
    from easydict import EasyDict
    from omegaconf import OmegaConf
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.third_party import amt
    from vbench.third_party.amt.utils.build_utils import build_from_cfg
    from vbench.third_party.RAFT.core.raft import RAFT

    torch.manual_seed(0)
    weights = folder / "weights"
    clip_archive(weights / "clip_model" / "ViT-B-32.pt", 32, 32)
    clip_archive(weights / "clip_model" / "ViT-L-14.pt", 768, 14)
    emb_reader = weights / "aesthetic_model" / "emb_reader" / "sa_0_4_vit_l_14_linear.pth"
    save(torch.nn.Linear(768, 1).state_dict(), emb_reader)
    save(MUSIQ(pretrained=False).state_dict(), weights / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth")
    config = OmegaConf.load(Path(amt.__path__[0]) / "cfgs" / "AMT-S.yaml").network
    save({"state_dict": build_from_cfg(config).state_dict()}, weights / "amt_model" / "amt-s.pth")
    raft = RAFT(EasyDict(small=False, mixed_precision=False, alternate_corr=False)).state_dict()
    save({f"module.{name}": value for name, value in raft.items()}, weights / "raft_model/models/raft-things.pth")
    hub = weights / "dino_model" / "facebookresearch_dino_main"
    hub.mkdir(parents=True)
    (hub / "hubconf.py").write_text(HUBCONF)
    dino = {"head.weight": torch.randn(8, 588), "head.bias": torch.zeros(8)}
    name = "dino_vitbase16_pretrain.pth"
    for place in (weights / "dino_model", folder / "torch" / "hub" / "checkpoints"):  # VBench asks for both
        save(dino, place / name)


def write_clips(folder, prompts, size=128):
    """A clip for each prompt: a textured square that moves, of another length and speed each.

    Below 128 pixels AMT has no numbers.
    """
    import cv2
    import numpy as np

    folder.mkdir(parents=True)
    for number, prompt in enumerate(prompts):
        rng = np.random.default_rng(number)
        ground, square = rng.integers(0, 120, (size, size, 3)), rng.integers(120, 255, (24, 24, 3))
        ground = cv2.GaussianBlur(ground.astype(np.uint8), (9, 9), 0)
        writer = cv2.VideoWriter(str(folder / f"{prompt}-0.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 8, (size, size))
        for step in range(5 + number):
            frame = ground.copy()
            left = 4 + (3 + number) * step
            frame[30:54, left : left + 24] = square[:, : size - left]
            writer.write(frame)
        writer.release()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    ShardWork(str(target / "weights")).load("cpu")  # lets torchvision be imported beside a CPU build of torch
    write_weights(target)
    viclip(target / "weights")
    write_clips(target / "videos", ["a cat", "a dog", "a car", "a boat", "a lake, oil painting"])
