"""`raysandbox doctor`: the extras; environments and model files are tested beside their verbs."""

import re
import tomllib
from pathlib import Path

import pytest

from raysandbox.cli import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def extras():
    """Those for users: extra → names of its packages."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {
        extra: {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
        for extra, requirements in declared.items()
        if extra not in ("dev", "spark")
    }


def test_every_extra_is_shown_by_a_package_it_brings(extras):
    assert set(doctor._EXTRAS) == set(extras)
    assert {extra: package for extra, (package, _) in doctor._EXTRAS.items() if package not in extras[extra]} == {}


def test_the_readme_names_every_extra(extras):
    sentence = (ROOT / "README.md").read_text().rpartition("Extras:")[2]
    assert set(re.findall(r"\[([\w-]+)\]", sentence)) == set(extras)


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "_EXTRAS", {"datasets": ("no-such-package", "no_such_package")})
    assert list(doctor._extras()) == [("extra datasets", "absent", "pip install 'raysandbox[datasets]'")]
