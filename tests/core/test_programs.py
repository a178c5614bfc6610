"""Programs of other environments: their output, their end, and that nothing of them stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.core.programs import child_environment, run_program


def run(code, stall_timeout_s=30.0, command=None):
    lines = []
    run_program(
        command or [sys.executable, "-c", code],
        cwd=Path("/"),
        environment=child_environment(sys.executable),
        on_line=lines.append,
        stall_timeout_s=stall_timeout_s,
        what="the script",
    )
    return lines


def gone(pid):
    """Whether a process has ended, waited for a moment: whoever adopted it may still have to fetch its status."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_lines_as_they_come(capfd):
    code = r"import sys; print('a'); sys.stderr.write('\r1/3\r2/3\r3/3'); sys.stdout.flush(); print('\nlast', end='')"
    assert sorted(run(code)) == ["1/3", "2/3", "3/3", "a", "last"]
    out = capfd.readouterr().out
    assert "a\n" in out
    assert ("1/3" in out, "3/3" in out) == (True, True)


def test_a_progress_bar_does_not_fill_the_log(capfd):
    assert len(run(r"import sys; [sys.stdout.write(f'\r{n}/500 [') for n in range(500)]")) == 500
    assert len(capfd.readouterr().out.splitlines()) < 5


def test_a_status_other_than_0():
    with pytest.raises(JobFailed, match=r"the script ended with status 3; its last lines:\nno memory$"):
        run("import sys; print('no memory'); sys.exit(3)")
    with pytest.raises(JobFailed, match=r"ended with status 3; its last lines:\n\(it wrote nothing\)"):
        run("import sys; sys.exit(3)")


def test_a_signal_is_named():
    with pytest.raises(JobFailed, match="was killed by SIGKILL: perhaps the machine's memory"):
        run("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(JobFailed, match="was killed by SIGSEGV"):
        run("import os; os.kill(os.getpid(), 11)")


def test_a_program_that_is_not_there():
    with pytest.raises(JobFailed, match=r"status 127; its last lines:\n/no/such/program: No such file"):
        run("", command=["/no/such/program"])


def test_the_last_lines_hold_a_bar_once():
    code = (
        r"import sys; print('start'); [sys.stdout.write(f'\r{n}/50') for n in range(50)]; print('\nbad'); sys.exit(1)"
    )
    with pytest.raises(JobFailed, match=r"lines:\nstart\n49/50\nbad$"):
        run(code)


CHILD = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "print(os.getpid(), child.pid, flush=True)\n"
)


def test_a_hang_is_ended_with_all_children():
    lines = []
    start = time.monotonic()
    with pytest.raises(JobFailed, match=r"wrote nothing for 0\.5 s and was ended \(stall_timeout_s\)"):
        run_program(
            [sys.executable, "-c", CHILD + "time.sleep(600)"],
            cwd=Path("/"),
            environment=child_environment(sys.executable),
            on_line=lines.append,
            stall_timeout_s=0.5,
            what="the script",
        )
    assert time.monotonic() - start < 8
    assert all(gone(int(pid)) for pid in lines[0].split())


def test_children_that_outlive_the_program_end_too():
    assert all(gone(int(pid)) for pid in run(CHILD)[0].split())


STUBBORN = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "code = 'import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.setsid(); '\n"
    "code += 'print(os.getpid(), flush=True); time.sleep(600)'\n"
    "child = subprocess.Popen([sys.executable, '-c', code])\n"
    "print(os.getpid(), flush=True)\n"
    "time.sleep(600)\n"
)


def test_grandchildren_that_ignore_sigterm_end_too():
    lines = []
    with pytest.raises(JobFailed, match="wrote nothing"):
        run_program(
            [sys.executable, "-c", STUBBORN],
            cwd=Path("/"),
            environment=child_environment(sys.executable),
            on_line=lines.append,
            stall_timeout_s=2.0,
            what="the script",
        )
    assert len(lines) == 3
    assert all(gone(int(pid)) for pid in lines)


def test_a_program_that_closes_its_output_and_goes_on_is_ended():
    with pytest.raises(JobFailed, match=r"wrote nothing for 0\.5 s"):
        run("import os, time; os.close(1); os.close(2); time.sleep(600)", stall_timeout_s=0.5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_all_ends_when_the_caller_is_killed(how):
    code = (
        "import sys; from pathlib import Path\n"
        "from raysandbox.core.programs import *\n"
        f"run_program([sys.executable, '-c', {CHILD + 'time.sleep(600)'!r}], cwd=Path('/'), "
        "environment=child_environment(sys.executable), on_line=lambda line: print(line, flush=True), "
        "stall_timeout_s=60, what='x')"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pids = [int(pid) for pid in caller.stdout.readline().split()]
    os.kill(caller.pid, how)
    caller.wait()
    caller.stdout.close()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_the_environment_of_a_script(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = child_environment("/envs/ea/bin/python")
    assert not {"PYTHONPATH", "RAY_ADDRESS"} & set(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["PATH"].startswith("/envs/ea/bin:")
