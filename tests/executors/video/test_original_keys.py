"""The original's nested keys, as `check` and `ls` see them."""

import pytest

from raysandbox.api import check
from raysandbox.config.validation import model_problems
from raysandbox.core.describe import describe_keys
from raysandbox.executors.infer.diffusers import DiffusersInference
from raysandbox.executors.infer.easyanimate import EasyAnimateInference
from raysandbox.executors.train.diffusers import DiffusersTrainer
from raysandbox.executors.train.easyanimate import EasyAnimateTrainer

CONFIG = """\
project_name: p
experiment_name: e
execution_job_configs:
  - hook: TrainModelHook
    output: [lora]
    extra_configs:
      type: easyanimate
      train:
        model_path:
          pretrained_model_name_or_path: ./model
        dataset_path: {dataset_meta_name: data.json}
        training_config:
          sampel_size: 256
          rank: -1
        saving_config: {output_dir: outputs/lora}
  - hook: InferModelHook
    input: {extra_configs.train.model_path.lora_path: "-1.lora"}
    extra_configs:
      type: easyanimate
      height: 128
      train:
        model_path: {pretrained_model_name_or_path: org/model}
        infer_config:
          image_size: 256
          prompt_info_path: prompts.txt
        saving_config: {output_video_dir: outputs/videos}
"""


def test_check_names_the_nested_keys_with_their_lines(workspace):
    (workspace / "model").mkdir()
    (workspace / "data.json").write_text("[]")
    (workspace / "prompts.txt").write_text("a cat")
    (workspace / "config.yaml").write_text(CONFIG)
    found = {
        (problem.line, problem.severity, str(problem).split(": ", 2)[1].split(".extra_configs.")[1])
        for problem in check("config.yaml")
    }
    assert found == {
        (10, "warning", "train.model_path.pretrained_model_name_or_path"),
        (13, "error", "train.training_config.sampel_size"),
        (14, "error", "train.training_config.rank"),
        (20, "error", "height"),
        (22, "warning", "train.model_path.pretrained_model_name_or_path"),  # fetched when it is first used
    }


def test_a_misspelt_nested_key_is_answered_with_the_right_one():
    fixes = {}
    raw = {"train": {"training_config": {"sampel_size": 1, "rnak": 4}}}
    model_problems(EasyAnimateTrainer, raw, lambda path, message, fix="": fixes.update({path[-1]: fix}))
    assert fixes["sampel_size"] == "did you mean 'sample_size'?"
    assert fixes["rnak"] == "did you mean 'rank'?"


@pytest.mark.parametrize(
    ("component", "flat"), [(EasyAnimateTrainer, DiffusersTrainer), (EasyAnimateInference, DiffusersInference)]
)
def test_all_keys_of_the_flat_component_are_taken_and_described_there(component, flat):
    described = {key.name for key in describe_keys(component)}
    # Both backends have this one.
    assert described & set(flat.model_fields) == ({"stall_timeout_s"} if flat is DiffusersInference else set())
    assert {name for name in described if name.startswith("train.")} >= {
        "train.model_path.pretrained_model_name_or_path",
        "train.tracker_config",
    }
    assert set(flat.model_fields) - set(component.model_fields) == set()
