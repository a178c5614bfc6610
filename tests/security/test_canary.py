"""Rule 7: a canary secret, put wherever secrets come from, is found in nothing that a run leaves or says."""

import logging
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from raysandbox.cli.main import main
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook

# In the environment, in the configuration, in an address, in the environment of the job's workers.
ENVIRONMENT = {
    "WANDB_API_KEY": "canary-wandb-0123456789abcdef0123456789abcd",
    "HF_TOKEN": "hf_canary/Hub+token=1",
    "AWS_SECRET_ACCESS_KEY": "canary/Aws+Secret/4711",
}
ADDRESS, WORKER, OPTION = "canary%2Fin-address", "canary&worker é token", "canary_option_value"
# Known by their places alone, in what a script of others prints.
PLACES = (
    "git+https://{}@host/x",
    "https://u:p@{}:w@host/x",
    "https://host/x?sv=1&sig={}",
    "Authorization: token {}",
    "Authorization: {}",
    "X-Api-Key: {}",
)
PLACED = [f"canary-placed-{number}" for number in range(len(PLACES))]
FORMS = {
    form
    for secret in (*ENVIRONMENT.values(), ADDRESS, WORKER, OPTION, *PLACED)
    for form in (secret, quote(secret, safe=""))
}

SCRIPT = """\
import json, os, sys, time
from urllib.parse import quote
names = ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SERVICE_TOKEN"]
print("arguments", sys.argv[1:])
for name in names:
    value = os.environ[name]
    print(name, value, quote(value, safe=""), json.dumps(value), flush=True)
    sys.stdout.write(value[:7]); sys.stdout.flush(); time.sleep(0.05)
    print(value[7:], flush=True)
    sys.stderr.write(f"\\rSteps: 1/1 [{value}, step_loss=0.5]"); sys.stderr.flush()
print(flush=True)
for number, place in enumerate(PLACES):
    print(place.format("canary-" + f"placed-{number}"), flush=True)
if os.environ.get("FAIL"):
    raise RuntimeError("cannot log in with " + os.environ["SERVICE_TOKEN"] + " at " + sys.argv[1])
open(os.path.join(sys.argv[2], "checkpoint-1.safetensors"), "wb").write(bytes.fromhex(sys.argv[3]))
"""


def found_in(folder: Path) -> dict[str, str]:
    """Files below a folder that hold the canary in any form, with the form."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    named = {str(path): path.name.encode() + content for path, content in contents.items()}
    return {path: form for path, content in named.items() for form in FORMS if form.encode() in content}


def is_pickle(path: Path) -> bool:
    content = path.read_bytes()
    return content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b"."


@pytest.fixture
def experiment(tmp_path):
    """The folder of an experiment whose training says all that it knows."""
    folder = tmp_path / "project"
    source = folder / "EasyAnimate"
    source.mkdir(parents=True)
    (source / "talk.py").write_text(f"PLACES = {PLACES!r}\n{SCRIPT}")
    (folder / "model").mkdir()
    (folder / "data.json").write_text("[{}]")
    (folder / "rows.jsonl").write_text('{"text": "hello"}\n')
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = struct.pack("<Q", len(header)) + header + bytes(4)
    train = {
        "type": "easyanimate",
        "backend": "external",
        "env": sys.executable,
        "source": "EasyAnimate",
        "script": "talk.py",
        "launcher": "python",
        "script_arguments": [f"https://user:{ADDRESS}@host/x?api_key={OPTION}", "{output_dir}", weights.hex()],
        "model": "model",
        "dataset": "data.json",
        "output_dir": "out/lora",
    }
    jobs = [
        {
            "hook": "ProcessDataHook",
            "dj_configs": {
                "dataset_path": "rows.jsonl",
                "export_path": "out/x.jsonl",
                "process": [{"text_length_filter": {}}],
            },
        },
        {
            "hook": "TrainModelHook",
            "meta_name": "train",
            "extra_configs": train,
            "resources": {"num_cpus": 0.5},
            "runtime_env": {"env_vars": {"SERVICE_TOKEN": WORKER, "FAIL": ""}},
        },
    ]
    config = {"project_name": "p", "experiment_name": "e", "work_dir": "out/run", "execution_job_configs": jobs}
    (folder / "run.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return folder


def run(folder: Path, temporary: dict[str, str], *arguments: str):
    home = folder.parent / "home"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "RAY_"))}
    environment |= {"HOME": str(home), "WANDB_MODE": "offline", **ENVIRONMENT, **temporary}
    command = [sys.executable, "-m", "raysandbox", "run", "run.yaml", "--allow-user-code", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def temporary():
    """Folders for temporary files, ours and Ray's; Ray's sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="rs-") as ours, tempfile.TemporaryDirectory(prefix="rs-") as rays:
        yield {"TMPDIR": ours, "RAY_TMPDIR": rays}


@register("CanaryBreakHook")
class CanaryBreakHook(Hook):
    """Raises what quotes a secret, with a cause that quotes it too."""

    def run(self, job, context):
        secret = os.environ["CANARY_API_KEY"]
        try:
            raise KeyError(f"no account for {secret}")
        except KeyError as error:
            logging.getLogger("some.library").warning("logging in as %s", {"key": secret})
            raise ZeroDivisionError(f"cannot log in with {secret}") from error


def test_the_traceback_of_a_failed_job_holds_no_secret(tmp_path, monkeypatch, capfd):
    secret = "canary/in a traceback"
    monkeypatch.setenv("CANARY_API_KEY", secret)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "work_dir: work\nprobe_job_configs:\n  - {hook: CanaryBreakHook, meta_name: b, retries: 1}\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["run", "run.yaml"])
    assert caught.value.code == 1
    log = next((tmp_path / "work/logs").glob("*b.log")).read_text()
    assert "ZeroDivisionError: cannot log in with ***" in log
    assert "no account for ***" in log
    assert "logging in as {'key': '***'}" in log
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file() and secret in path.read_text()] == []
    assert secret not in "".join(capfd.readouterr())


def test_the_traceback_of_a_defect_holds_no_secret(monkeypatch, capfd):
    secret = "canary/in a defect"
    monkeypatch.setenv("CANARY_API_KEY", secret)

    def defect(**_):
        logging.lastResort.handle(logging.makeLogRecord({"msg": f"given {secret}", "levelno": logging.WARNING}))
        raise ZeroDivisionError(secret)

    monkeypatch.setattr("raysandbox.cli.main.app", defect)
    with pytest.raises(SystemExit) as caught:
        main(["ls"])
    assert caught.value.code == 1
    said = "".join(capfd.readouterr())
    assert "given ***" in said
    assert "ZeroDivisionError: ***" in said
    assert secret not in said


@pytest.mark.timeout(500)
def test_nothing_of_a_run_holds_a_secret(experiment, temporary):
    done = run(experiment, temporary)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    failed = run(experiment, temporary, "-o", "execution_job_configs.train.runtime_env.env_vars.FAIL=really")
    said += failed.stdout + failed.stderr
    assert failed.returncode == 1, said
    assert "cannot log in with ***" in said
    log = next((experiment / "out/run/logs").glob("*train*.log")).read_text()
    assert "SERVICE_TOKEN *** *** " in log  # it was printed, and is not there
    assert list((experiment / "out/run").rglob("*.wandb"))
    assert [form for form in FORMS if form in said] == []
    for folder in (experiment / "out", experiment.parent / "home", Path(temporary["TMPDIR"])):
        assert found_in(folder) == {}
    assert [path for path in experiment.rglob("*") if path.is_file() and is_pickle(path)] == []  # rule 5


@pytest.mark.parametrize(
    "change", ["execution_job_configs.train.extra_configs.api_key=" + OPTION, "work_dirr=" + OPTION]
)
def test_findings_do_not_quote_what_is_secret(experiment, change):
    environment = {**os.environ, **ENVIRONMENT}
    command = [sys.executable, "-m", "raysandbox", "check", "run.yaml", "--allow-user-code", "-o", change]
    done = subprocess.run(
        command, cwd=experiment, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "unknown key" in done.stderr
    assert not any(form in done.stdout + done.stderr for form in FORMS if form != OPTION or "api_key" in change)
