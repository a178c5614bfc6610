"""Rule 9: what a configuration or a caption holds is text in a report, never a part of the page."""

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

from raysandbox.core.files import atomic_write
from raysandbox.report.markdown import write_report
from raysandbox.report.search import write_search_report
from tests.report.test_search import FORMS, a_search, done, params
from tests.report.test_summary import lines, metric

EVIL = "<script>alert(1)</script>"
CLOSING = '</script><img src=x onerror="alert(1)">'
LINK = "[click](javascript:alert(1))"


class Page(HTMLParser):
    """The elements of a page, and the handlers among their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value and "//" in value]


def search_page(folder, forms, records):
    (folder / "a").mkdir(parents=True)
    write_search_report(a_search(folder, records, forms))
    return Page((folder / "artifacts/search/search.html").read_text())


def test_the_page_of_a_search(tmp_path):
    plain = search_page(tmp_path / "plain", FORMS, [done(number, 0.5 + number / 10) for number in range(4)])
    forms = {**FORMS, EVIL: {"values": [CLOSING, EVIL, LINK]}}
    records = [
        replace(
            done(number, 0.5 + number / 10),
            params={**params(number), EVIL: (CLOSING, EVIL, LINK)[number % 3]},
            reason=CLOSING,
            state="failed" if number == 3 else "done",
        )
        for number in range(4)
    ]
    evil = search_page(tmp_path / EVIL.replace("/", "-"), forms, records)
    for element in ("script", "img", "iframe", "object", "a", "link"):
        assert evil.elements[element] == plain.elements[element]
    assert evil.handlers == []
    assert evil.addresses == []  # it loads nothing from anywhere


def test_the_report_of_a_run(tmp_path):
    folder = tmp_path / "run <b>"
    jobs = {f"p.{EVIL}#0": "done"}
    atomic_write(
        folder / "status.json",
        json.dumps({"state": "failed", "exit": 1, "jobs": jobs, "notes": [EVIL, LINK], "error": f"{CLOSING}\n{LINK}"}),
    )
    lines(folder / "journal.jsonl", [{"event": "job_started", "job": f"p.{EVIL}#0", "key": "k"}])
    lines(folder / "metrics.jsonl", [metric(f"{EVIL}.{CLOSING}", 0.5, f"p.{EVIL}#0", "k")])
    rows = [{"name": f"{EVIL} | {LINK}\n# x", "rows_in": 1, "rows_out": 1, "failed": 0, "seconds": 0.1}]
    atomic_write(folder / "artifacts/01-x/operators.json", json.dumps(rows))
    text = write_report(folder).read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text
    assert "\n# x" not in text
    assert "&lt;script>" in text
