"""Data-Juicer's operators through the bridge: equal to calling them directly."""

import json
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import ConfigError, JobFailed, MissingExtraError
from raysandbox.core.keys import canonical_json, code_version
from raysandbox.ops import bridge, bridge_guard, bridge_peer
from raysandbox.ops.base import OPERATORS, Filter, OpResources
from raysandbox.ops.batch import JSON_TEXT, Batch, FieldKeys
from raysandbox.recipe.api import process
from raysandbox.recipe.problems import parse_recipe, recipe_problems

PEER = pytest.mark.skipif(not bridge_peer.installed(), reason="needs pip install 'raysandbox[datajuicer]'")
NAMES = [name for name in bridge.names() if bridge.kind_of(name) != "pipeline"]
STATS, META = "__dj__stats__", "__dj__meta__"

BOILERPLATE = "All rights reserved by somebody or other"
TEXTS = [
    f"First  document\u3000of Ann, ann@example.com, 192.168.0.1\n{BOILERPLATE}\nends here",
    f"<table><tr><td>a</td><td>b</td></tr></table>\n{BOILERPLATE}",
    "你好，世界。 电话 13812345678",
    f"short\n{BOILERPLATE}\n",
    "x",
    "Plain words without anything to find in them",
]
STEPS = [
    {"whitespace_normalization_mapper": {}},
    {"extract_tables_from_html_mapper": {}},
    {"pii_redaction_mapper": {}},
    {"text_length_filter": {"min_len": 3}},
    {"document_line_deduplicator": {"frequency_threshold": 2}},
    {"image_subplot_filter": {}},
    {"key_value_grouper": {"group_by_keys": ["group.name"]}},
    {"naive_reverse_grouper": {}},
    {"words_num_filter": {"min_num": 2}},
]


def rows_of(texts):
    return [
        {"id": i, "text": text, "images": [], "group": {"name": "odd" if i % 2 else "even"}}
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module", autouse=True)
def _own_models(tmp_path_factory):
    """Data-Juicer looks for models in the home that it first sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


def directly(steps, rows, **more):
    """What Data-Juicer makes of rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.core.data import NestedDataset
        from data_juicer.ops import load_ops

        dataset = NestedDataset.from_list(rows)
        for step in steps:
            ((name, parameters),) = step.items()
            (op,) = load_ops([{name: parameters}])
            op.auto_op_parallelism, op.num_proc = False, None  # a number would fork this process, which holds Ray
            dataset = op.run(dataset, **more)
        return dataset.to_list()


@PEER
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_mixed_recipe_is_equal_to_data_juicers(engine, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows_of(TEXTS)))
    recipe = {"dataset_path": str(source), "process": STEPS, "keep_stats_in_res_ds": True}
    recipe["export_path"] = str(tmp_path / "out.jsonl")
    result = process(recipe, engine=engine, cache=False, block_bytes=200)
    assert result.engine == engine
    made = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = directly(STEPS, rows_of(TEXTS))
    assert [row["id"] for row in made] == [0, 2, 5]
    assert made == expected
    assert [(op.name, op.rows_in, op.rows_out) for op in result.ops][4:8] == [
        ("document_line_deduplicator", 5, 5),
        ("image_subplot_filter", 5, 5),
        ("key_value_grouper", 5, 2),
        ("naive_reverse_grouper", 2, 5),
    ]


@PEER
def test_nothing_forks_a_process_that_may_hold_ray(monkeypatch):
    def refuse():
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", refuse)
    steps = [{"document_line_deduplicator": {}}, {"key_value_grouper": {}}, {"naive_reverse_grouper": {}}]
    assert len(process({"process": steps}, rows=rows_of(TEXTS)).rows) == len(TEXTS)


@PEER
def test_filter_decides_by_its_statistics_alone(tmp_path):
    from PIL import Image

    blank = np.full((300, 300, 3), 255, np.uint8)
    grid = blank.copy()
    grid[::60] = grid[:, ::60] = 0
    paths = {"blank": str(tmp_path / "blank.png"), "grid": str(tmp_path / "grid.png")}
    for name, pixels in (("blank", blank), ("grid", grid)):
        Image.fromarray(pixels).save(paths[name])
    images = [[paths["grid"], paths["blank"]], [paths["blank"]], [paths["grid"]], []]
    operator = OPERATORS.get("image_subplot_filter")()
    assert isinstance(operator, Filter)
    assert "any_or_all" in operator.thresholds()
    stats = operator.compute(Batch(pa.table({"images": images})), operator.load())
    rows = [{"images": each, STATS: {}} for each in images]
    expected = [row[STATS] for row in directly([{"image_subplot_filter": {}}], rows, reduce=False)]
    assert [
        dict(zip(stats, values, strict=True)) for values in zip(*(v.to_pylist() for v in stats.values()), strict=True)
    ] == expected
    for bounds in ({}, {"any_or_all": "all"}, {"min_confidence": 0.6, "reversed_range": True}):
        stricter = operator.model_copy(update=bounds)
        kept = directly([{"image_subplot_filter": bounds}], rows)
        assert [row for row, keep in zip(images, stricter.keep(stats), strict=True) if keep] == [
            row["images"] for row in kept
        ]


@PEER
def test_bad_row_goes_to_quarantine():
    rows = [{"text": text} for text in ("good", None, "also good")]
    steps = [{"python_lambda_mapper": {"lambda_str": "lambda row: {**row, 'size': len(row['text'])}"}}]
    result = process({"process": steps, "max_bad_rows": 1}, rows=rows, allow_user_code=True)
    assert [(row["text"], row["size"]) for row in result.rows] == [("good", 4), ("also good", 9)]
    assert result.quarantined == 1


@PEER
def test_rows_that_an_operator_makes_carry_their_statistics():
    steps = [
        {"text_length_filter": {"min_len": 1}},
        {"python_lambda_mapper": {"lambda_str": "lambda rows: {k: v + v for k, v in rows.items()}", "batched": True}},
    ]
    rows = [{"text": "ab"}, {"text": "abc"}]
    result = process({"process": steps, "keep_stats_in_res_ds": True}, rows=rows, allow_user_code=True)
    assert [(row["text"], row[STATS]["text_len"]) for row in result.rows] == [("ab", 2), ("abc", 3)] * 2


@PEER
def test_column_names_of_the_recipe_reach_the_operator():
    steps = [{"extract_tables_from_html_mapper": {}}, {"key_value_grouper": {}}, {"naive_reverse_grouper": {}}]
    recipe = {"process": steps, "text_keys": "page", "keep_stats_in_res_ds": True}
    result = process(recipe, rows=[{"page": "<table><tr><td>1</td></tr></table>"}])
    assert result.rows == [{"page": "<table><tr><td>1</td></tr></table>", META: {"html_tables": [[["1"]]]}}]


@PEER
def test_columns_keep_what_an_operator_leaves_alone():
    mixed = pa.field("mixed", pa.large_string(), metadata=JSON_TEXT)
    columns = {
        "text": pa.array(["<p>"]),
        "list": pa.array([[1]], pa.list_(pa.int8())),
        "when": pa.array([1], pa.date32()),
    }
    table = pa.table(columns).append_column(mixed, pa.array(['{"a": 1}'], pa.large_string()))
    operator = OPERATORS.get("extract_tables_from_html_mapper")()
    made = operator.process(Batch(table), operator.load()).table
    assert made.drop_columns([META]).equals(table)
    assert made.schema.field("mixed").metadata == JSON_TEXT


@PEER
def test_missing_package_is_named():
    operator = OPERATORS.get("nlpaug_en_mapper")()
    if bridge_peer.importlib.util.find_spec("nlpaug") is None:
        with pytest.raises(JobFailed, match="needs nlpaug, which is not installed: pip install 'nlpaug'"):
            operator.load()


@PEER
def test_refused_parameters_are_explained():
    with pytest.raises(JobFailed, match=r"video_split_by_key_frame_mapper of .* cannot be set up: .*save_dir"):
        OPERATORS.get("video_split_by_key_frame_mapper")().load()


@PEER
def test_no_program_installs_or_fetches():
    bridge_peer._data_juicer()
    from data_juicer.ops.mapper import vggt_mapper
    from data_juicer.utils import model_utils

    for module in (vggt_mapper, model_utils):
        assert isinstance(module.subprocess, bridge_guard._Programs)
        with pytest.raises(JobFailed, match="wants to run `git clone there`"):
            module.subprocess.run(["git", "clone", "there"], check=True)
    with pytest.raises(JobFailed, match="needs https://there/model"):
        model_utils.wget.download("https://there/model", "/models")
    with pytest.raises(JobFailed, match=r"needs the model file lid.176.bin"):
        model_utils.check_model("lid.176.bin", force=True)


def test_guard_lets_working_programs_run():
    assert bridge_guard._start(lambda command: command, "ffmpeg -i 'a b.mp4'") == "ffmpeg -i 'a b.mp4'"
    assert bridge_guard._start(lambda command: command, ["/usr/bin/nvidia-smi"]) == ["/usr/bin/nvidia-smi"]


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_has_a_class(name):
    cls = bridge.make(name)
    required = {key: [] for key, field in cls.model_fields.items() if field.is_required()}
    if "output_schema" in required:
        required["output_schema"] = {}
    operator = cls(**required)
    assert operator.type_name == name
    assert pickle.loads(pickle.dumps(operator)) == operator
    assert canonical_json(operator.model_dump(mode="json"))
    assert isinstance(operator.resources(), OpResources | None)
    assert code_version(type(operator)) == code_version(bridge.PeerOperator)
    with pytest.raises(ValueError, match="no_such_parameter"):
        cls(**required, no_such_parameter=1)
    if isinstance(operator, Filter):
        assert operator.stats
        assert operator.thresholds() <= set(cls.model_fields)
        assert all({stat.lower, stat.upper} - {None} <= operator.thresholds() for stat in operator.stats)


def test_declared_resources():
    caption = OPERATORS.get("image_captioning_mapper")
    assert caption().resources() == OpResources(num_gpus=None)  # 16GB of a GPU
    assert caption(num_gpus=0.5, num_proc=3).resources() == OpResources(num_gpus=0.5, workers=3)
    assert caption(accelerator="cpu").resources() == OpResources(memory=16 << 30)
    tables = OPERATORS.get("extract_tables_from_html_mapper")
    assert tables().resources() is None
    assert tables(mem_required="500MB", num_cpus=2).resources() == OpResources(num_cpus=2, memory=500 << 20)
    with pytest.raises(ValueError, match="number of bytes, or of KB"):
        tables(memory="much")


def test_files_of_code_are_inputs():
    (ref,) = path_refs(OPERATORS.get("python_file_mapper"), {"file_path": "mine.py"})
    assert (ref.key, ref.path, ref.role) == (("file_path",), "mine.py", PathRole.INPUT)


def test_recipe_columns_yield_to_the_operators_own():
    operator = OPERATORS.get("extract_tables_from_html_mapper")(image_key="pictures")
    bound = operator.for_recipe(FieldKeys(text="page", image="images"))
    assert (bound.text_key, bound.image_key) == ("page", "pictures")


def test_aliases_are_the_same_operator():
    assert OPERATORS.get("ray_document_deduplicator") is OPERATORS.get("document_deduplicator")
    assert parse_recipe({"process": ["ray_document_deduplicator"]}).operators()[0].type_name == "document_deduplicator"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"pii_redaction_maper": {}}, "unknown operator 'pii_redaction_maper'; did you mean 'pii_redaction_mapper'?"),
        (
            {"image_captioning_mapper": {"captionnum": 2}},
            "unknown parameter 'captionnum' of image_captioning_mapper; did",
        ),
        ({"image_captioning_mapper": {"caption_num": "two"}}, "should be"),
        ({"python_lambda_mapper": {"lambda_str": "lambda row: row"}}, "python_lambda_mapper runs code of yours"),
        ({"ray_repartition_pipeline": {}}, "drives Ray by itself"),
    ],
)
def test_check_knows_names_and_parameters(step, message):
    (problem,) = [found for found in recipe_problems({"process": [step]}) if found.severity == "error"]
    assert message in problem.message


def test_without_data_juicer_only_check_goes_on(monkeypatch):
    monkeypatch.setattr(bridge_peer, "installed", lambda: False)
    recipe = {"process": [{"pii_redaction_mapper": {}}]}
    (problem,) = recipe_problems(recipe)
    assert (problem.severity, problem.missing_path) == ("warning", True)
    assert (
        "pii_redaction_mapper of Data-Juicer needs py-data-juicer: pip install 'raysandbox[datajuicer]'"
        in problem.message
    )
    with pytest.raises(ConfigError, match=r"pip install 'raysandbox\[datajuicer\]'"):
        process(recipe, rows=[{"text": ""}])
    with pytest.raises(MissingExtraError):
        OPERATORS.get("pii_redaction_mapper")().load()


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(bridge_peer, "installed", lambda: True)
    monkeypatch.setattr(bridge_peer, "version", lambda _: "0.0.1")
    with pytest.raises(JobFailed, match=r"that of Data-Juicer [\d.]+, and 0.0.1 is installed"):
        OPERATORS.get("tool_success_tagger_mapper")(batch_size=7).load()


def test_the_table_is_read_without_importing_data_juicer():
    program = (
        "import sys; from raysandbox.recipe.problems import recipe_problems;"
        "recipe_problems({'process': ['pii_redaction_mapper', 'image_subplot_filter']});"
        "sys.exit(bool({'data_juicer', 'torch', 'datasets', 'loguru'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@PEER
@pytest.mark.parametrize("before", [[], ["document_deduplicator"]])
def test_a_recipe_may_end_with_an_operator_that_rewrites_rows(before, tmp_path):
    texts = [f"line {number}\n{BOILERPLATE}" for number in range(4)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, texts[0]]))
    steps = [*before, {"document_line_deduplicator": {"frequency_threshold": 3}}]
    result = process({"dataset_path": str(source), "export_path": str(target), "process": steps})
    expected = ["line 0", "line 1", "line 2", "line 3", *([] if before else ["line 0"])]
    assert [json.loads(line)["text"] for line in target.read_text().splitlines()] == expected
    assert (result.ops[-1].rows_in, result.ops[-1].rows_out) == (len(expected), len(expected))
