import json
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.watcher.metrics import Metric, MetricsLog, flatten


@pytest.fixture
def open_log(tmp_path):
    logs = []

    def open_one():
        logs.append(MetricsLog(tmp_path / "metrics.jsonl", "run-1"))
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(*values, name="job.loss"):
    return [Metric(name, value, step, 1.5) for step, value in enumerate(values)]


def test_a_line_is_what_the_contract_says(open_log):
    log = open_log()
    log.append("c", 0, [Metric("train.loss", 0.5, 3, 12.3456)])
    assert lines(log.path) == [
        {"t": 12.346, "seq": 0, "run": "run-1", "name": "train.loss", "value": 0.5, "step": 3}
        | {"job": "", "unit": "", "client": "c", "n": 0}
    ]


def test_values_that_json_lacks_come_back(open_log):
    log = open_log()
    log.append("c", 0, metrics(math.nan, name="a") + metrics(math.inf, name="b") + metrics(-math.inf, name="c"))
    for line in log.path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    again = open_log()
    assert math.isnan(again.last["a"])
    assert (again.last["b"], again.last["c"]) == (math.inf, -math.inf)


def test_numbering_goes_on_after_a_torn_line(open_log):
    log = open_log()
    path = log.path
    log.append("c", 0, metrics(1, 2, 3))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    again = open_log()
    again.append("c", 2, metrics(3, 4))  # the sender sends again what was lost
    assert [(line["seq"], line["n"], line["value"]) for line in lines(path)] == [
        (0, 0, 1),
        (1, 1, 2),
        (2, 2, 3),
        (3, 3, 4),
    ]
    assert again.size == path.stat().st_size


def test_a_failed_write_leaves_the_file_as_it_was(open_log):
    class FullDisk:
        def __init__(self, file):
            self.file = file
            self.full = True

        def write(self, data):
            if self.full:
                self.file.write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    log = open_log()
    log.append("c", 0, metrics(1))
    log._file = FullDisk(log._file)
    with pytest.raises(OSError, match="space"):
        log.append("c", 1, metrics(2, 3))
    log._file.full = False
    log.append("c", 1, metrics(2, 3))
    assert [line["value"] for line in lines(log.path)] == [1, 2, 3]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=12), st.integers(0, 5))
def test_resent_batches_count_once(tmp_path_factory, sends, reopen_every):
    """Any order of batches that a client may send after failures gives every metric once, in order."""
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    log, known = MetricsLog(path, "run"), 0
    for index, (back, count) in enumerate(sends):
        if reopen_every and index % reopen_every == 0:
            log.close()
            log = MetricsLog(path, "run")
        first = max(known - back, 0)
        log.append("c", first, [Metric("m", n, None, 0.0) for n in range(first, first + count)])
        known = max(known, first + count)
    assert [line["value"] for line in lines(path)] == list(range(known))
    log.close()


def test_flatten_gives_plain_values():
    found = dict(flatten("eval", {"acc": np.float32(0.5), "by": {"n": np.int64(3), 2: True}, "path": "x", "l": (1,)}))
    assert found == {"eval.acc": 0.5, "eval.by.n": 3, "eval.by.2": True, "eval.path": "x", "eval.l": [1]}
    assert type(found["eval.by.n"]) is int
    assert list(flatten("loss", np.array(2.5))) == [("loss", 2.5)]


def test_flatten_redacts_texts(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    assert dict(flatten("out", {"url": "http://x/?k=canary-in-env"})) == {"out.url": "http://x/?k=***"}


def test_reporting_is_cheap(open_log):
    log = open_log()
    start = time.perf_counter()
    for first in range(0, 2000, 100):
        log.append("c", first, [Metric("m", 1.0, n, 0.0) for n in range(100)])
    assert (time.perf_counter() - start) / 2000 < 0.001
