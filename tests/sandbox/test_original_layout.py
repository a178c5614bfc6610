"""A configuration with the layout of Data-Juicer's own sandbox example, run as it is written there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from raysandbox.evaluators._quality_training import train
from raysandbox.evaluators._spark_writer import write_pipeline

ROOT = Path(__file__).parents[2]

SANDBOX = """\
# Sandbox config example
# global parameters
project_name: 'demo-sandbox'
experiment_name: 'demo-sandbox-run0'              # for wandb tracer name
hpo_config: null                                  # path to a configuration file when using auto-HPO tool.

# configs for each job, the jobs will be executed according to the order in the list
probe_job_configs:
  - hook: 'ProbeViaAnalyzerHook'
    meta_name: 'analysis_ori_data'
    dj_configs: 'configs/demo/process.yaml'
    extra_configs:

refine_recipe_job_configs:
  - hook: 'RefineRecipeViaKSigmaHook'
    meta_name: 'analysis_ori_data'
    dj_configs: 'configs/demo/process.yaml'
    extra_configs:
      path_k_sigma_recipe: './outputs/demo-process/k_sigma_new_recipe.yaml'

execution_job_configs:
  - hook: 'ProcessDataHook'
    meta_name:
    dj_configs: './outputs/demo-process/k_sigma_new_recipe.yaml'
    extra_configs:
  - hook: 'TrainModelHook'
    meta_name:
    dj_configs:
    extra_configs: 'configs/demo/sandbox/gpt3_extra_train_config.json'

evaluation_job_configs:
  - hook: 'ProbeViaAnalyzerHook'
    meta_name: 'analysis_processed_data'
    dj_configs: 'configs/demo/process.yaml'
    extra_configs:
  - hook: 'EvaluateDataHook'
    meta_name: 'eval_data'
    dj_configs:
    extra_configs: 'configs/demo/sandbox/gpt3_data_quality_eval_config.yaml'
"""
PROCESS = """\
# Process config example for dataset

# global parameters
project_name: 'demo-process'
dataset_path: './demos/data/demo-dataset.jsonl'  # path to your dataset directory or file
np: 4  # number of subprocess to process your dataset

export_path: './outputs/demo-process/demo-processed.jsonl'

# process schedule
# a list of several process operators with their arguments
process:
  - language_id_score_filter:
      lang: 'zh'
      min_score: 0.8
"""
TRAIN = {
    "type": "modelscope",
    "train_dataset": "./outputs/demo-process/demo-processed.jsonl",
    "work_dir": "./outputs/demo-process",
    "model_name": "iic/nlp_gpt3_text-generation_chinese-base",
    "trainer_name": "nlp-base-trainer",
    "key_remapping": {"text": "src_txt"},
    "train": {
        "max_epochs": 2,
        "lr_scheduler": {"type": "StepLR", "step_size": 2, "options": {"by_epoch": False}},
        "optimizer": {"type": "AdamW", "lr": 3e-4},
        "dataloader": {"batch_size_per_gpu": 2, "workers_per_gpu": 0},
    },
}
EVALUATE = "type: dj_text_quality_classifier\ndataset_path: './outputs/demo-process/demo-processed.jsonl'\n"
CHINESE = [f"今天的天气很好,我们第{number}次一起去公园散步,然后回家吃饭。" for number in range(12)]
OTHER = ["The weather is nice today.", "Das Wetter ist heute schön.", "欢迎来到北京,这里有很多美丽的地方可以参观。"]


def test_it_runs_unmodified(tmp_path: Path) -> None:
    texts = CHINESE + OTHER
    files = {
        "configs/demo/sandbox/sandbox.yaml": SANDBOX,
        "configs/demo/process.yaml": PROCESS,
        "configs/demo/sandbox/gpt3_extra_train_config.json": json.dumps(TRAIN, indent=4),
        "configs/demo/sandbox/gpt3_data_quality_eval_config.yaml": EVALUATE,
        "demos/data/demo-dataset.jsonl": "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    # What the hub would bring: a model under its name, the published classifier at its place.
    tiny = [sys.executable, ROOT / "scripts/make_tiny_gpt3", tmp_path / TRAIN["model_name"], "--hidden", "32"]
    subprocess.run([*tiny, "--vocab-from", tmp_path / "demos/data/demo-dataset.jsonl"], check=True, timeout=120)
    model, _ = train(CHINESE, OTHER, num_features=1024)
    write_pipeline(model, Path.home() / ".cache/raysandbox/models/quality/gpt3_quality_model")

    command = [sys.executable, "-m", "raysandbox", "run", "--config", "configs/demo/sandbox/sandbox.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    work = tmp_path / "outputs/demo-sandbox-run0"
    assert set(json.loads((work / "status.json").read_text())["jobs"].values()) == {"done"}
    kept = [json.loads(line)["text"] for line in (tmp_path / TRAIN["train_dataset"]).read_text().splitlines()]
    assert kept == [text for text in texts if text not in OTHER[:2]]
    assert (tmp_path / "outputs/demo-process/output/configuration.json").exists()

    again = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(json.loads((work / "status.json").read_text())["jobs"].values()) == {"cached"}
