"""Rule 4: without --allow-user-code no key of a configuration makes weights run, fetches code, or changes Python."""

import json
import typing
from pathlib import Path

import pytest
import yaml

from raysandbox.api import check, run
from raysandbox.config.user_code import code_in_environment, code_in_options
from raysandbox.core.component import LibraryOptions
from raysandbox.core.errors import ConfigError
from raysandbox.executors.base import INFERENCES, MODEL_EVALUATORS, MODEL_PROBES, TRAINERS
from raysandbox.executors.evaluate.lm_eval import LmEval
from raysandbox.executors.infer.huggingface import HuggingFaceInference
from raysandbox.executors.infer.vllm import VllmInference
from raysandbox.executors.probe.modelscope import ModelscopeProbe
from raysandbox.executors.train.modelscope import ModelscopeTrainer
from raysandbox.recipe.problems import recipe_problems
from tests.executors.tiny_language_models import llama
from tests.security.traps import WEIGHTS


def keys(model, **raw):
    return [path for path, _, _ in code_in_options(model, raw)]


def written(folder: Path, job: dict) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"work_dir": str(folder / "work"), "execution_job_configs": [job]}))
    return str(path)


def inference(folder: Path, model: str, **more) -> str:
    (folder / "rows.jsonl").write_text('{"query": "a b"}\n')
    extra = {"type": "huggingface", "model": model, "dataset_path": str(folder / "rows.jsonl"), **more}
    extra["export_path"] = str(folder / "answers")
    return written(folder, {"hook": "InferModelHook", "meta_name": "i", "extra_configs": extra})


@pytest.mark.parametrize("trap", WEIGHTS)
def test_pickled_weights_stay_shut_whatever_the_configuration_says(tmp_path, trap):
    folder, mark = Path(llama(tmp_path / "llama", ["a b c"])), tmp_path / "mark"
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    trap(folder / "pytorch_model.bin", mark)
    config = inference(tmp_path, str(folder), model_params={"weights_only": False, "use_safetensors": False})
    with pytest.raises(ConfigError, match=r"model_params.weights_only: lets weights be pickles") as caught:
        run(config)
    assert "--allow-user-code" in str(caught.value)
    assert not mark.exists()


def test_check_says_where_it_stands(tmp_path):
    config = inference(tmp_path, "org/model", model_params={"attn_implementation": "org/kernels"})
    found = [problem for problem in check(config) if problem.severity == "error"]
    line = next(n for n, text in enumerate(Path(config).read_text().splitlines(), 1) if "attn_impl" in text)
    assert [(problem.line, problem.message) for problem in found] == [(line, "names code that is fetched from a hub")]
    assert [problem for problem in check(config, allow_user_code=True) if problem.severity == "error"] == []


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (HuggingFaceInference, "model_params", {"state_dict": "x"}),
        (HuggingFaceInference, "model_params", {"adapter_kwargs": {"weights_only": False}}),
        (HuggingFaceInference, "model_params", {"use_kernels": True}),
        (HuggingFaceInference, "model_params", {"attn_implementation": {"text": "org/kernels:attention"}}),
        (HuggingFaceInference, "sampling_params", {"custom_generate": "org/code"}),
        (VllmInference, "model_params", {"worker_cls": "evil.Worker"}),
        (VllmInference, "model_params", {"worker_extension_cls": "evil.Extension"}),
        (VllmInference, "model_params", {"logits_processors": ["evil:Processor"]}),
        (VllmInference, "model_params", {"compilation_config": {"backend": "evil.backend"}}),
        (VllmInference, "model_params", {"distributed_executor_backend": "evil.Executor"}),
        (LmEval, "model_args", {"weights_only": False}),
        (LmEval, "model_args", {"autogptq": "model.pt"}),
        (LmEval, "gen_kwargs", {"custom_generate": "org/code"}),
        (ModelscopeProbe, "pipeline_params", {"config_file": "evil.json"}),
        (ModelscopeProbe, "infer_params", {"plugins": ["evil"]}),
        (ModelscopeTrainer, "train", {"hooks": [{"type": "X", "custom_code": "evil"}]}),
        (ModelscopeTrainer, "train", {"optimizer": {"type": "SGD", "lr": 0.1, "optimizer_cls": "evil.X"}}),
    ],
)
def test_keys_that_run_code(model, field, value):
    (path,) = keys(model, **{field: value})
    assert path[0] == field
    assert path[1] == next(iter(value))


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (HuggingFaceInference, "model_params", {"dtype": "bfloat16", "attn_implementation": "flash_attention_2"}),
        (HuggingFaceInference, "model_params", {"weights_only": True, "use_safetensors": True}),
        (HuggingFaceInference, "sampling_params", {"max_new_tokens": 3}),
        (VllmInference, "model_params", {"max_model_len": 64, "tensor_parallel_size": 1}),
        (LmEval, "model_args", {"peft": "./adapter", "add_bos_token": True}),
        (ModelscopeProbe, "pipeline_params", {"pipeline_name": "x"}),
        (ModelscopeTrainer, "key_remapping", {"custom_text": "src_txt"}),
    ],
)
def test_keys_that_do_not(model, field, value):
    assert keys(model, **{field: value}) == []


def test_what_comes_from_an_earlier_job_is_looked_at_before_its_job_runs(tmp_path):
    from raysandbox.config.documents import Document
    from raysandbox.sandbox.drafts import Draft
    from raysandbox.sandbox.plan import user_code_problems

    document = Document({}, "run.yaml", {})
    draft = Draft({}, document, (), document, unknown={("model_params", "weights_only")})
    raw = {"model_params": {"weights_only": "<later>"}}
    assert user_code_problems(HuggingFaceInference, raw, draft) == []
    draft.unknown.clear()
    assert len(user_code_problems(HuggingFaceInference, raw, draft)) == 1


def test_operators_of_data_juicer():
    params = {"model_params": {"trust_remote_code": True, "deep": [{"worker_cls": "evil.Worker"}]}}
    recipe = {"dataset_path": "x.jsonl", "process": [{"llm_quality_score_filter": params}]}
    base = ("process", 0, "llm_quality_score_filter", "model_params")
    found = [problem.path for problem in recipe_problems(recipe) if "code" in problem.message]
    assert found == [(*base, "trust_remote_code"), (*base, "deep", 0, "worker_cls")]
    assert not [p for p in recipe_problems(recipe, allow_user_code=True) if "code" in p.message]


# Mappings that stay in this package, or go where no code can be named.
STAYS = {
    ("api", "model_params"),  # base_url only
    ("api", "sampling_params"),  # sent to a server
}


def test_mappings_that_load_models_say_which_keys_are_harmless():
    """A new `…_params` of a component is either a list of known keys or judged by names: somebody decided."""
    registries = (INFERENCES, MODEL_EVALUATORS, MODEL_PROBES, TRAINERS)
    classes = [kind.get(name) for kind in registries for name in kind.names() if not kind.is_planned(name)]
    open_mappings = {
        (cls.type_name, name): [item for item in field.metadata if isinstance(item, LibraryOptions)]
        for cls in classes
        for name, field in cls.model_fields.items()
        if typing.get_origin(field.annotation) is dict and typing.Any in typing.get_args(field.annotation)
    }
    for key in (("huggingface", "model_params"), ("vllm", "model_params"), ("lm_eval", "model_args")):
        assert open_mappings[key], key
    loading = {key for key in open_mappings if key[1].startswith(("model_", "pipeline_"))}
    assert [key for key in loading - STAYS if not open_mappings[key]] == []


HOOK = "import pathlib; pathlib.Path({mark!r}).touch()\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("env_vars", {"PYTHONPATH": "code"}),
        ("env_vars", {"LD_PRELOAD": "x.so"}),
        ("env_vars", {"PATH": "code"}),
        ("env_vars", {"RAY_worker_register_timeout_seconds": "1"}),
        ("env_vars", {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}),
        ("env_vars", {"NCCL_NET_PLUGIN": "x"}),
        ("worker_process_setup_hook", "evil.hook"),
        ("py_modules", ["code"]),
        ("pip", ["evil"]),
        ("uv", ["evil"]),
        ("conda", "evil"),
        ("container", {"image": "evil"}),
        ("image_uri", "evil"),
        ("working_dir", "code"),
        ("py_executable", "python -c pass"),
        ("py_executable", ["python"]),
    ],
)
def test_runtime_environments_bring_no_code(tmp_path, key, value):
    mark, code = tmp_path / "mark", tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(HOOK.format(mark=str(mark)))
    if value == {"PYTHONPATH": "code"}:
        value = {"PYTHONPATH": str(code)}
    recipe = {"dataset_path": "rows.jsonl", "export_path": "out.jsonl", "process": [], "engine": "ray"}
    job = {"hook": "ProcessDataHook", "meta_name": "p", "dj_configs": recipe, "runtime_env": {key: value}}
    config = written(tmp_path, job)
    found = [problem for problem in check(config) if problem.severity == "error"]
    assert len(found) == 1
    assert f"runtime_env.{key}" in str(found[0])
    assert f"{config}:" in str(found[0])
    assert "--allow-user-code" in str(found[0])
    with pytest.raises(ConfigError):
        run(config)
    assert not mark.exists()
    assert [problem for problem in check(config, allow_user_code=True) if problem.severity == "error"] == []


def test_runtime_environments_may_set_other_variables_and_an_interpreter():
    given = {"env_vars": {"SERVICE_TOKEN": "x", "CUDA_VISIBLE_DEVICES": "0", "HF_HOME": "/models"}}
    assert list(code_in_environment({**given, "py_executable": "envs/vbench/bin/python"})) == []
    assert [path for path, _, _ in code_in_environment({"env_vars": {"pythonpath": "x"}})] != []
    assert list(code_in_environment(json.loads('{"env_vars": null}'))) == []
