import contextlib
import os
import signal
import threading
import time
import warnings

import pytest

from raysandbox.core.errors import JobTimeout, RunInterrupted
from raysandbox.runtime.signals import deadline, interruptible


def test_deadline():
    start = time.monotonic()
    with pytest.raises(JobTimeout, match=r"the work ran past its limit of 0\.1 s"), deadline(0.1):
        time.sleep(5)
    assert time.monotonic() - start < 1


def test_in_time():
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with deadline(5), deadline(None):
        pass
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(timer[0], abs=1)


@pytest.mark.parametrize(("outer", "inner", "first"), [(0.1, 5, "outer"), (5, 0.1, "inner"), (0.1, 0.1, "outer")])
def test_nested(outer, inner, first):
    start = time.monotonic()
    with pytest.raises(JobTimeout, match=first), deadline(outer, "outer"), deadline(inner, "inner"):
        time.sleep(5)
    assert time.monotonic() - start < 1


def test_the_outer_deadline_still_holds_after_an_inner_one():
    def work():
        with pytest.raises(JobTimeout, match="inner"), deadline(0.1, "inner"):
            time.sleep(5)
        time.sleep(5)

    with pytest.raises(JobTimeout, match="outer"), deadline(0.3, "outer"):
        work()


@pytest.mark.parametrize("swallowed", [Exception, KeyboardInterrupt])
def test_swallowing_does_not_help(swallowed):
    def work():
        with contextlib.suppress(swallowed):
            time.sleep(5)

    start = time.monotonic()
    with pytest.raises(JobTimeout), deadline(0.1):
        work()
    assert time.monotonic() - start < 1


def test_what_a_signal_calls_in_blocks_around():
    told = []

    def full(signum):
        told.append(("full", signum))
        raise OSError("no room")

    def outer(signum):
        told.append(("outer", signum))

    def work(*callbacks):
        with contextlib.ExitStack() as stack:
            for callback in callbacks:
                stack.enter_context(interruptible(callback))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(RunInterrupted):
        work(outer, full, full, None)
    assert told == [("full", signal.SIGTERM), ("outer", signal.SIGTERM)]
    with pytest.raises(RunInterrupted):
        work(None)
    assert len(told) == 2


def test_other_errors_pass_through():
    with pytest.raises(ValueError, match="own"), deadline(5), interruptible():
        raise ValueError("own")


def test_no_deadline_in_threads_that_cannot_be_interrupted():
    errors = []

    def work():
        try:
            with deadline(1):
                pass
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == ["deadline() works in the main thread and in WorkThreads only"]


def interrupted(work, signum, after):
    """Runs `work` inside `interruptible` and sends this process a signal meanwhile."""
    with interruptible(), deadline(20):
        threading.Timer(after, os.kill, (os.getpid(), signum)).start()
        work()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interruption(signum):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RunInterrupted) as caught:
        interrupted(lambda: time.sleep(5), signum, 0.1)
    assert caught.value.signum == signum
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_ray_calls_are_interrupted(cluster):
    import ray

    @ray.remote(num_cpus=0.1)
    def sleep():
        time.sleep(60)

    reference = sleep.remote()
    for blocking in (lambda: ray.get(reference), lambda: ray.wait([reference], timeout=30)):
        start = time.monotonic()
        with pytest.raises(JobTimeout), deadline(0.2):
            blocking()
        assert time.monotonic() - start < 2
        with pytest.raises(RunInterrupted):
            interrupted(blocking, signal.SIGTERM, 0.2)
        assert time.monotonic() - start < 4
    ray.cancel(reference, force=True)


def test_ray_data_is_interrupted(cluster):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Data's own
        import ray.data

        def slow(row):
            time.sleep(12)  # Ray Data lets tasks that run come to their end
            return row

        dataset = ray.data.range(1).map(slow)
        start = time.monotonic()
        with pytest.raises(JobTimeout), deadline(5):
            dataset.take_all()
        assert time.monotonic() - start < 10
