"""`raysandbox doctor`: what it prints and how it ends; the judging is tested in tests/report/doctor."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from raysandbox.cli.main import main
from raysandbox.report.doctor import installation
from raysandbox.report.doctor.lines import Line
from raysandbox.runtime import machine
from raysandbox.runtime.listening import Listener

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_ray_of_others(monkeypatch):
    """What listens on the machine that runs the tests is none of theirs."""
    monkeypatch.setattr(machine, "ray_listeners", tuple)
    monkeypatch.setattr(machine, "_limit", lambda kind: machine.UNLIMITED)


@pytest.fixture(scope="module")
def extras():
    """Those for users: extra → names of its packages."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {
        extra: {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
        for extra, requirements in declared.items()
        if extra not in ("dev", "spark")
    }


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code, *capsys.readouterr()


def test_every_extra_is_shown_by_a_package_it_brings(extras):
    assert set(extras) <= set(installation.EXTRAS)
    shown = {extra: installation.EXTRAS[extra][0] for extra in extras}
    assert {extra: package for extra, package in shown.items() if package not in extras[extra]} == {}


def test_the_readme_names_every_extra(extras):
    sentence = (ROOT / "README.md").read_text().rpartition("Extras:")[2]
    assert set(re.findall(r"\[([\w-]+)\]", sentence)) == set(extras)


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installation, "EXTRAS", {"datasets": ("no-such-package", "no_such_package")})
    expected = Line("installation", "extra datasets", "note", "not installed", "pip install 'raysandbox[datasets]'")
    assert list(installation.extra_lines()) == [expected]


def test_json_has_a_stable_form(capsys):
    status, out, _ = ended(capsys, "doctor", "--json")
    found = json.loads(out)
    assert list(found) == ["schema", "state", "counts", "lines"]
    assert found["schema"] == 1
    assert list(found["counts"]) == ["green", "yellow", "red", "note"]
    assert all(list(line) == ["group", "what", "state", "found", "fix", "node"] for line in found["lines"])
    assert sum(found["counts"].values()) == len(found["lines"])
    groups = {line["group"] for line in found["lines"]}
    assert {"machine", "disks", "GPUs", "versions", "installation", "security"} <= groups
    assert (status == 1) == (found["state"] == "red")


def test_an_open_port_without_a_token_ends_with_1(capsys, monkeypatch):
    monkeypatch.setattr(machine, "ray_listeners", lambda: (Listener("GCS", "0.0.0.0", 6379, 1, "none"),))
    status, out, _ = ended(capsys, "doctor")
    assert status == 1
    assert "port of GCS" in out.splitlines()[-1]


def test_strict_counts_yellow(capsys, monkeypatch):
    monkeypatch.setattr(machine, "ray_listeners", lambda: (Listener("GCS", "10.0.0.1", 6379, 1, "token"),))
    assert ended(capsys, "doctor")[0] == 0
    assert ended(capsys, "doctor", "--strict")[0] == 1


def test_a_wrong_configuration_ends_with_2(capsys, workspace):
    (workspace / "a.yaml").write_text("execution_job_configs: [{hook: NoSuchHook}]\n")
    status, out, _ = ended(capsys, "doctor", "a.yaml")
    assert status == 2
    assert "NoSuchHook" in out
    assert ended(capsys, "doctor", "absent.yaml")[0] == 2


def test_a_job_whose_extra_is_absent_or_that_never_fits_is_red(capsys, workspace, monkeypatch):
    monkeypatch.setattr(installation, "EXTRAS", installation.EXTRAS | {"video": ("no-such-package", "no_such_package")})
    (workspace / "prompts.txt").write_text("a cat\n")
    (workspace / "a.yaml").write_text(
        "execution_job_configs:\n- hook: InferModelHook\n  meta_name: generate\n"
        "  extra_configs: {type: fake, prompts: prompts.txt, output_dir: out}\n"
        "  resources: {num_gpus: 1, num_workers: 4000}\n"
    )
    _, out, _ = ended(capsys, "doctor", "a.yaml", "--json")
    red = {line["what"]: line for line in json.loads(out)["lines"] if line["state"] == "red"}
    assert red["extra video"]["fix"] == "pip install 'raysandbox[video]'"
    assert "generate" in red["extra video"]["found"]
    assert "never fits this machine" in red["resources of anonymous.generate#0"]["found"]


def test_secrets_are_not_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "canary0123456789canary")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-of-ray-0123456789")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("https_proxy", "http://user:canary-of-proxy@proxy.example:3128")
    for arguments in (["doctor"], ["doctor", "--json"]):
        _, out, err = ended(capsys, *arguments)
        assert "canary" not in out + err
        assert "proxy.example" in out


def test_nothing_of_ray_is_imported_without_cluster():
    program = (
        "import sys\nfrom raysandbox.cli.main import main\n"
        "try:\n    main(['doctor'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.usefixtures("cluster")
def test_a_local_ray_is_asked(capsys):
    _, out, _ = ended(capsys, "doctor", "--cluster", "--json")
    lines = json.loads(out)["lines"]
    by_what = {line["what"]: line for line in lines}
    assert by_what["cluster"]["found"] == "1 node(s) alive, 3 CPUs, 2 GPUs"
    assert by_what["storage: cache"]["state"] == "green"
    assert by_what["calls"]["found"].endswith("ms there and back")
    assert by_what["on the nodes"]["state"] == "green"
    assert by_what["Ray's GPUs"]["state"] == "yellow"  # they exist in name only
    assert not list(Path.home().rglob(".raysandbox-probe-*"))
