"""The audit of installed packages: said aloud when it is skipped, and no ignored finding without a reason."""

import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "scripts/audit"


def test_it_is_skipped_aloud_where_nobody_answers():
    environment = {**os.environ, "RAYSANDBOX_AUDIT_URL": "http://127.0.0.1:9/"}
    done = subprocess.run(
        [sys.executable, AUDIT], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "audit: SKIPPED" in done.stdout


def test_one_that_takes_too_long_is_no_success(tmp_path):
    """The list answers, pip-audit does not end: neither "skipped" nor well."""
    pip_audit = tmp_path / "pip_audit"
    pip_audit.mkdir()
    (pip_audit / "__init__.py").touch()
    (pip_audit / "__main__.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "known.json").write_text('{"vulnerabilities": []}')
    more = {"RAYSANDBOX_AUDIT_URL": (tmp_path / "known.json").as_uri(), "RAYSANDBOX_AUDIT_LIMIT_S": "0.5"}
    environment = {**os.environ, **more, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, AUDIT], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert "audit: TIMED OUT, pip-audit did not end within 0.5 s" in done.stdout
    assert "SKIPPED" not in done.stdout


def test_an_ignored_finding_needs_a_reason(tmp_path):
    loader = SourceFileLoader("audit", str(AUDIT))
    spec = spec_from_loader("audit", loader)
    assert spec is not None
    audit = module_from_spec(spec)
    loader.exec_module(audit)
    good = "# a comment\n\nPYSEC-2024-1 only a server of ours would be reached by it\n"
    (tmp_path / "ignores.txt").write_text(good)
    assert audit.ignored(tmp_path / "ignores.txt") == ["PYSEC-2024-1"]
    (tmp_path / "ignores.txt").write_text(good + "PYSEC-2024-2\n")
    with pytest.raises(ValueError, match=r"ignores\.txt:4: PYSEC-2024-2 needs its reason"):
        audit.ignored(tmp_path / "ignores.txt")
    assert isinstance(audit.ignored(AUDIT.with_name("audit_ignores.txt")), list)
