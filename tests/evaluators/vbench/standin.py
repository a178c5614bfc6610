"""A stand-in for VBench: the same interface, scores that stand in the video files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UTILS = """
import json, os
from pathlib import Path

def init_submodules(dimensions, local=False, read_frame=False):
    assert local
    return {dimension: [] for dimension in dimensions}

def load_dimension_info(json_dir, dimension, lang):
    return [], json.loads(Path(json_dir).read_text())

def video(path):
    content = json.loads(Path(path).read_text())
    if "kill" in content and not os.path.exists(content["kill"]):
        Path(content["kill"]).touch()
        os.kill(os.getpid(), 9)
    if "raise" in content:
        raise RuntimeError(content["raise"])
    return content

def loaded(dimension):
    with open(os.path.join(os.environ["VBENCH_CACHE_DIR"], "loads"), "a") as file:
        file.write(dimension + "\\n")
    return dimension
"""
# Each like VBench's own: what it takes, what it says about a video, what it leaves out.
MODULES = {
    "temporal_flickering": """
def temporal_flickering(video_list):
    results = []
    for path in video_list:
        content = video(path)
        if content["frames"]:
            results.append({"video_path": path, "video_results": numpy.float64(content["value"])})
    return numpy.nan, results

def compute_temporal_flickering(json_dir, device, submodules, **kwargs):
    loaded("temporal_flickering")
    return temporal_flickering(load_dimension_info(json_dir, "temporal_flickering", "en")[0])
""",
    "subject_consistency": """
def subject_consistency(model, video_list, device, read_frame):
    results = []
    for path in video_list:
        content = video(path)
        total = content["value"] * (content["frames"] - 1)
        results.append({"video_path": path, "video_results": total / (content["frames"] - 1)})
    return 0.0, results

def compute_subject_consistency(json_dir, device, submodules, **kwargs):
    model = loaded("subject_consistency")
    return subject_consistency(model, load_dimension_info(json_dir, "subject_consistency", "en")[0], device, False)
""",
    "dynamic_degree": """
class DynamicDegree:
    def infer(self, path):
        if not path.endswith(".mp4"):
            raise NotImplementedError
        content = video(path)
        self.params = {"count_num": round(4 * content["frames"] / 16)}
        moves = [content["value"] > 0.5] * (content["frames"] - 1)
        return any(sum(moves[:n]) >= self.params["count_num"] for n in range(1, len(moves) + 1))

def dynamic_degree(dynamic, video_list):
    return 0.0, [{"video_path": path, "video_results": dynamic.infer(path)} for path in video_list]

def compute_dynamic_degree(json_dir, device, submodules, **kwargs):
    loaded("dynamic_degree")
    return dynamic_degree(DynamicDegree(), load_dimension_info(json_dir, "dynamic_degree", "en")[0])
""",
    "overall_consistency": """
def overall_consistency(model, video_dict, tokenizer, device, sample="middle"):
    results = []
    for info in video_dict:
        for path in info["video_list"]:
            results.append({"video_path": path, "video_results": video(path)["value"] + len(info["prompt"])})
    return 0.0, results

def compute_overall_consistency(json_dir, device, submodules, **kwargs):
    model = loaded("overall_consistency")
    return overall_consistency(model, load_dimension_info(json_dir, "overall_consistency", "en")[1], None, device)
""",
    "appearance_style": """
def appearance_style(model, video_dict, device, sample="rand"):
    results = []
    for info in video_dict:
        for path in info["video_list"]:
            content = video(path)
            frames = [content["value"] + n + len(info["auxiliary_info"]["appearance_style"])
                      for n in range(content["frames"])]
            mean = numpy.mean(frames)
            results.append({"video_path": path, "video_results": mean, "frame_results": frames})
    return 0.0, results

def compute_appearance_style(json_dir, device, submodules, **kwargs):
    model = loaded("appearance_style")
    return appearance_style(model, load_dimension_info(json_dir, "appearance_style", "en")[1], device)
""",
    "color": """
def color(model, video_dict, device):
    results, rate = [], 0
    for info in video_dict:
        for path in info["video_list"]:
            content = video(path)
            if content["value"] >= 0.5:
                results.append({"video_path": path, "video_results": content["value"]})
    return 1 / len(results), results

def compute_color(json_dir, device, submodules, **kwargs):
    try:
        color(loaded("color"), load_dimension_info(json_dir, "color", "en")[1], device)
    except ZeroDivisionError:
        pass
    return 0.0, []
""",
    "human_action": """
def human_action(path, video_list, device):
    if video_list:
        loaded("human_action")
    return 0.0, [{"video_path": path, "video_results": video(path)["value"] > 0.5} for path in video_list]

def compute_human_action(json_dir, device, submodules, **kwargs):
    return human_action("umt", load_dimension_info(json_dir, "human_action", "en")[0], device)
""",
}
DECORD = """
import json
from pathlib import Path

class VideoReader:
    def __init__(self, path, num_threads=0):
        self.frames = json.loads(Path(path).read_text())["frames"]

    def __len__(self):
        return self.frames
"""
PROMPTS = [
    {"prompt_en": "a cat", "dimension": ["temporal_flickering", "subject_consistency", "overall_consistency"]},
    {"prompt_en": "a dog", "dimension": ["temporal_flickering", "subject_consistency", "overall_consistency"]},
    {"prompt_en": "a red car", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "a person is dancing", "dimension": "human_action"},
    {
        "prompt_en": "a lake, oil painting",
        "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}},
    },
]


def write_video(path: Path, value: float, frames: int = 8, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"value": value, "frames": frames, **more}))
    return path


@dataclass
class InProcess:
    """`core.runner.Workers` without workers: units from the last to the first."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def map(self, work, units, *, description="", python=None, num_workers=None, elastic=False):
        assert python
        if not units:
            return
        state = work.load("cpu")
        for number in reversed(range(len(units))):
            self.calls.append((units[number]["dimension"], len(units[number]["videos"])))
            yield number, work.run(units[number], state)


@dataclass
class RecordingSession:
    """A `core.runner.WorkSession` that keeps the reports."""

    cache_dir: Path
    workers: Any = field(default_factory=InProcess)
    use_cache: bool = True
    metrics: dict[str, float] = field(default_factory=dict)

    def report(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics |= metrics


def make_stack(folder: Path) -> None:
    """Writes the stand-in, with the metadata of an installed package."""
    package = folder / "vbench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(UTILS)
    (package / "VBench_full_info.json").write_text(json.dumps(PROMPTS))
    for name, code in MODULES.items():
        (package / f"{name}.py").write_text(
            f"import numpy\nfrom vbench.utils import load_dimension_info, loaded, video\n{code}"
        )
    (folder / "decord.py").write_text(DECORD)
    (folder / "detectron2.py").touch()
    metadata = folder / "vbench-0.1.5.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: vbench\nVersion: 0.1.5\n")
