"""Rules 1, 2, 3 and 5, read off the source: what must not stand in the package, the scripts or the cluster files."""

import ast
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAITS = ROOT / "scripts/check_waits"


def python_files() -> list[Path]:
    scripts = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix in ("", ".py")]
    programs = [path for path in scripts if path.suffix or path.read_bytes().startswith(b"#!/usr/bin/env python3")]
    return sorted([*(ROOT / "raysandbox").rglob("*.py"), *programs])


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


class Call:
    """A call as the rules look at it.

    Attributes:
        name: what is called, with its dots.
        last: the part behind the last dot.
        given: arguments by keyword.
        values: all arguments.
    """

    def __init__(self, node: ast.Call):
        self.name = dotted(node.func)
        self.last = self.name.rpartition(".")[2]
        self.given = {keyword.arg: keyword.value for keyword in node.keywords}
        self.values = [*node.args, *self.given.values()]

    def says(self, key, value):
        return isinstance(self.given.get(key), ast.Constant) and self.given[key].value is value


CODE = {"eval", "exec", "compile", "builtins.eval", "builtins.exec"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
YAML = {"yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
PICKLE = {"pickle.load", "pickle.loads", "cloudpickle.loads", "pickle.dump"}
RULES = {
    "shell=": lambda call: "shell" in call.given and not call.says("shell", False),
    "a shell": lambda call: call.name in SHELLS,
    "code from text": lambda call: call.name in CODE,
    "YAML that builds objects": lambda call: call.name in YAML,
    "YAML that may build objects": lambda call: call.name == "yaml.load" and dotted(call.values[-1]) != "_PlainLoader",
    "torch.load without weights_only=True": lambda call: (
        call.name == "torch.load" and not call.says("weights_only", True)
    ),
    "np.load without allow_pickle=False": lambda call: (
        call.name in ("np.load", "numpy.load") and not call.says("allow_pickle", False)
    ),
    "a pickle": lambda call: call.name in PICKLE or call.last == "read_pickle",
    "trust_remote_code is on": lambda call: call.says("trust_remote_code", True),
    "an archive unpacked without a look at its names": lambda call: call.last in ("extractall", "unpack_archive"),
    "certificates are not checked": lambda call: (
        call.says("verify", False) or call.says("ssl", False) or call.last == "_create_unverified_context"
    ),
    "an open bind": lambda call: any(isinstance(v, ast.Constant) and v.value == "0.0.0.0" for v in call.values),
}
# Where a rule does not hold, and why.
EXCEPTIONS = {
    ("raysandbox/recipe/shipping.py", "a pickle"),  # what Ray's workers and the driver exchange, of this run
    ("raysandbox/ops/custom.py", "code from text"),  # the user's own operators, behind --allow-user-code
}


def offences(source: str, name: str = "planted.py") -> list[str]:
    """What a source does that it must not."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if {"shelve", "dill", "joblib", "marshal"} & {module.split(".")[0] for module in modules}:
                found.append(f"{name}:{node.lineno}: a pickle by another name")
        elif isinstance(node, ast.Call):
            call = Call(node)
            bad = [rule for rule, holds in RULES.items() if holds(call) and (name, rule) not in EXCEPTIONS]
            found += [f"{name}:{node.lineno}: {rule}" for rule in bad]
    return found


def test_the_source_keeps_the_rules():
    files = python_files()
    assert len(files) > 300
    found = [line for path in files for line in offences(path.read_text(), str(path.relative_to(ROOT)))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "os.system('ls')",
        "eval(target)",
        "exec(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "pickle.load(file)",
        "import joblib",
        "kind.from_pretrained(folder, trust_remote_code=True)",
        "archive.extractall(folder)",
        "session.get(url, verify=False)",
        "server(host='0.0.0.0')",
    ],
)
def test_each_offence_is_seen(line):
    assert len(offences(line)) == 1


def test_programs_are_given_as_lists():
    """No program is a text that a shell would take apart; and each call's status is looked at."""
    found: list[str] = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func).startswith("subprocess."):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                if node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant):
                    found.append(f"{where}: a text as command")
                if dotted(node.func) == "subprocess.run" and "check" not in {word.arg for word in node.keywords}:
                    found.append(f"{where}: no word about its status (check=)")
    assert found == []


def test_targets_with_code_are_refused(tmp_path):
    """Rule 1: nothing of a configuration is evaluated."""
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    for target in (f"{code} >= 1", f"a.b.c >= {code}", f"a.b.c >= 1 or {code}"):
        (tmp_path / "run.yaml").write_text(
            "project_name: p\nexperiment_name: e\nwork_dir: w\nmax_iter_num: 2\n"
            f"iter_targets: [{target!r}]\nexecution_job_configs:\n  - hook: ProcessDataHook\n"
            "    dj_configs: {dataset_path: x.jsonl, export_path: y.jsonl, process: [{text_length_filter: {}}]}\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "raysandbox", "check", "run.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stdout
        assert "iter_targets" in done.stderr
        assert "Traceback" not in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system ['true']", "a: !!python/name:os.system"])
def test_tags_of_python_are_refused(tmp_path, text):
    from raysandbox.config.load import load_config
    from raysandbox.core.errors import ConfigError

    (tmp_path / "run.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=r"tag|constructor"):
        load_config(tmp_path / "run.yaml")


# The lint of waits


@pytest.fixture(scope="module")
def waits():
    loader = SourceFileLoader("check_waits", str(WAITS))
    spec = spec_from_loader("check_waits", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["check_waits"] = module  # dataclasses look there
    loader.exec_module(module)
    yield module
    del sys.modules["check_waits"]


OFFENDERS = {
    "ray.get(call)": "has no limit",
    "ray.wait([call])": "has no limit",
    "ray.get(call, timeout=None)": "has no limit",
    "ray.get(call, timeout=5 if quick else None)": "has no limit",
    "ray.get(call, timeout=5)": "raises at its limit",
    "ray.wait([call], timeout=5)": "its result is not looked at",
    "subprocess.run(['x'], check=True)": "has no limit",
    "process.wait()": "has no limit",
    "process.wait(5)": "raises at its limit",
    "process.communicate()": "has no limit",
    "thread.join()": "has no limit",
    "thread.join(5)": "ask is_alive",
    "future.result()": "has no limit",
    "answers_queue.get()": "has no limit",
    "answers_queue.put(x)": "has no limit",
    "event.wait()": "has no limit",
    "condition.wait_for(ready)": "has no limit",
    "lock.acquire()": "has no limit",
    "connection.recv()": "has no limit",
    "urllib.request.urlopen(url)": "has no limit",
    "requests.get(url)": "has no limit",
    "aiohttp.ClientSession()": "has no limit",
    "select.select([a], [], [])": "has no limit",
    "fcntl.flock(file, fcntl.LOCK_EX)": "without LOCK_NB",
    "os.waitpid(pid, 0)": "without WNOHANG",
    "group.wait()": "has no limit",
    "snapshot_download(name)": "has no limit",
    "while not ready():\n    time.sleep(1)": "without a clock or a count",
    "while not ray.wait([call], timeout=1)[0]:\n    pull()": "without a clock or a count",
    "with subprocess.Popen(['x']):\n    pass": "where the block ends",
    "for line in process.stdout:\n    pass": "may stay away",
    "process.wait()  # waits: yes": "needs a reason",
}
GOOD = [
    "try:\n    ray.get(call, timeout=5)\nexcept RayError:\n    raise UserError('x')",
    "ready = ray.wait([call], timeout=5)[0]",
    "process.wait()  # waits: its pipe was closed before",
    "# waits: its pipe was closed before\nprocess.wait()",
    "', '.join(names)",
    "os.path.join(a, b)",
    "mapping.get('x')",
    "lock.acquire(blocking=False)",
    "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "while not ready():\n    if time.monotonic() > end:\n        raise TimeoutError('no answer')\n    time.sleep(1)",
    "with contextlib.suppress(subprocess.TimeoutExpired):\n    process.wait(5)",
]


@pytest.mark.parametrize("code", OFFENDERS)
def test_a_planted_wait_is_found(waits, tmp_path, code):
    (tmp_path / "planted.py").write_text(code + "\n")
    found = [finding.text for finding in waits.check([tmp_path])]
    assert any(OFFENDERS[code] in text for text in found), found


@pytest.mark.parametrize("code", GOOD)
def test_a_wait_that_ends_is_good(waits, tmp_path, code):
    (tmp_path / "planted.py").write_text(code + "\n")
    assert [str(finding) for finding in waits.check([tmp_path])] == []


def test_every_wait_of_the_package_has_a_limit_and_a_message(waits):
    assert [str(finding) for finding in waits.check([ROOT / "raysandbox"])] == []
