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
