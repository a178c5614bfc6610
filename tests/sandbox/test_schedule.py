"""Jobs at the same time: order, room, failures, limits and signals."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import JobFailed, JobTimeout, RunInterrupted, UserError
from raysandbox.runtime.main_thread import in_main_thread
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.session import Cluster, Node
from raysandbox.runtime.signals import deadline, interruptible
from raysandbox.sandbox import admission
from raysandbox.sandbox.admission import Demand, Space, fit_together
from raysandbox.sandbox.schedule import Piece, Schedule


def cpus(number: float) -> Demand:
    return Demand(Resources.model_validate({"num_cpus": number}))


@dataclass
class FakeTurn:
    """Notes what becomes of it."""

    name: int
    pieces: Sequence[Piece] = ()
    told: list[str] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    def begin(self) -> None:
        self.before()
        self.told.append("begin")

    def prepare(self) -> Sequence[Piece]:
        return self.pieces

    def end(self, results: Sequence[Any]) -> None:
        self.results = list(results)
        self.told.append("end")

    def fail(self, error: UserError) -> None:
        self.told.append(f"fail {error}")

    def give_up(self) -> None:
        self.told.append("give up")


def wait(seconds: float) -> None:
    """In a way that can be interrupted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def total(most: float) -> Callable[[Sequence[Demand]], bool]:
    def fit(demands: Sequence[Demand]) -> bool:
        return sum(demand.workers.num_cpus for demand in demands if demand.workers) <= most

    return fit


@st.composite
def work(draw: st.DrawFn) -> list[tuple[tuple[int, ...], list[int]]]:
    """Jobs: those before each, and the CPUs of its pieces."""
    number = draw(st.integers(1, 6))
    return [
        (
            tuple(sorted(draw(st.sets(st.integers(0, job - 1), max_size=3)))) if job else (),
            draw(st.lists(st.integers(1, 4), max_size=3)),
        )
        for job in range(number)
    ]


@given(work(), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=25)
def test_any_jobs_end_in_order_and_within_what_there_is(
    jobs: list[tuple[tuple[int, ...], list[int]]], room: int, most: int
) -> None:
    lock = threading.Lock()
    held: list[int] = []
    broken: list[str] = []

    def piece(job: int, index: int, needs: int) -> Piece:
        def run() -> tuple[int, int]:
            with lock:
                held.append(needs)
                if (sum(held) > room and len(held) > 1) or len(held) > most:
                    broken.append(f"{held} of {room}, {most} at once")
            time.sleep(0.001)
            with lock:
                held.remove(needs)
            return job, index

        return Piece(f"{job}.{index}", cpus(needs), run)

    turns = [
        FakeTurn(job, [piece(job, index, needs) for index, needs in enumerate(sizes)])
        for job, (_, sizes) in enumerate(jobs)
    ]

    def check(job: int) -> None:
        broken.extend(f"{job} before {other}" for other in jobs[job][0] if turns[other].told != ["begin", "end"])

    for job, turn in enumerate(turns):
        turn.before = lambda job=job: check(job)
    Schedule(turns, [before for before, _ in jobs], total(room), most).run()
    assert not broken
    assert all(turn.told == ["begin", "end"] for turn in turns)
    assert [turn.results for turn in turns] == [
        [(job, index) for index in range(len(sizes))] for job, (_, sizes) in enumerate(jobs)
    ]


def test_four_pieces_on_two_processors_take_half_the_time() -> None:
    turn = FakeTurn(0, [Piece(str(number), cpus(1), lambda: wait(0.5)) for number in range(4)])
    began = time.monotonic()
    Schedule([turn], [()], total(2)).run()
    assert 1.0 <= time.monotonic() - began < 1.9


def noting(started: list[str], name: str, needs: float) -> Piece:
    """A short piece that notes its start."""

    def run() -> None:
        started.append(name)
        wait(0.01)

    return Piece(name, cpus(needs), run)


def test_room_is_kept_for_a_large_piece_that_many_others_have_overtaken() -> None:
    started: list[str] = []
    piece = functools.partial(noting, started)
    first, large = FakeTurn(0, [piece("first", 1)]), FakeTurn(1, [piece("large", 4)])
    small = FakeTurn(2, [piece("small", 1) for _ in range(60)])
    Schedule([first, large, small], [(), (), ()], total(4)).run()
    assert started.index("large") <= 18  # the first one, and 16 others
    assert len(started) == 62


def test_what_takes_nothing_from_a_large_piece_goes_on_beside() -> None:
    def fit(demands: Sequence[Demand]) -> bool:
        workers = [demand.workers for demand in demands if demand.workers]
        return sum(each.num_cpus for each in workers) <= 4 and sum(each.num_gpus for each in workers) <= 2

    all_done = threading.Event()
    left = list(range(40))

    def small() -> None:
        left.pop()
        if not left:
            all_done.set()

    def holds_a_gpu() -> bool:
        end = time.monotonic() + 60
        while not all_done.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        return all_done.is_set()

    one = FakeTurn(0, [Piece("one", of(num_gpus=1, num_cpus=1), holds_a_gpu)])
    large = FakeTurn(1, [Piece("large", of(num_gpus=2, num_cpus=1), lambda: None)])
    others = FakeTurn(2, [Piece("small", cpus(1), small) for _ in range(40)])
    Schedule([one, large, others], [(), (), ()], fit).run()
    assert one.results == [True]


def test_a_piece_that_fits_nowhere_keeps_nobody_waiting() -> None:
    started: list[str] = []
    piece = functools.partial(noting, started)
    first, giant = FakeTurn(0, [piece("first", 1)]), FakeTurn(1, [piece("giant", 9)])
    small = FakeTurn(2, [piece("small", 1) for _ in range(40)])
    Schedule([first, giant, small], [(), (), ()], total(2)).run()
    assert started[-1] == "giant"


def test_the_cluster_is_asked_for_once_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Cluster] = []
    space = Space(lambda: asked.append(TWO) or TWO)
    assert [space.holds([of(num_workers=8)]), space.holds([of(num_workers=9)])] == [True, False]
    assert len(asked) == 1
    monkeypatch.setattr(admission, "_RECENT_S", -1.0)
    assert space.holds([of(num_workers=8)])
    assert len(asked) == 2


def test_a_failure_gives_up_the_others_and_starts_no_more() -> None:
    def fail() -> None:
        wait(0.2)
        raise JobFailed("the reason")

    failing, long = FakeTurn(0, [Piece("f", cpus(1), fail)]), FakeTurn(1, [Piece("l", cpus(1), lambda: wait(60))])
    third, next_one = FakeTurn(2, [Piece("t", cpus(1), lambda: None)]), FakeTurn(3)
    began = time.monotonic()
    with pytest.raises(JobFailed, match=r"^the reason$"):
        Schedule([failing, long, third, next_one], [(), (), (), (0,)], total(2)).run()
    assert time.monotonic() - began < 10
    assert failing.told == ["begin", "fail the reason"]
    assert long.told == ["begin", "give up"]
    assert third.told == ["begin"]
    assert next_one.told == []


def test_several_failures_are_all_named() -> None:
    barrier = threading.Barrier(2)

    def fail(name: str) -> None:
        try:
            barrier.wait(10)
        finally:  # the other one's failure may have interrupted this one by now
            raise JobFailed(name)

    turns = [FakeTurn(number, [Piece(name, cpus(1), lambda name=name: fail(name))]) for number, name in enumerate("ab")]
    with pytest.raises(JobFailed) as caught:
        Schedule(turns, [(), ()], total(2)).run()
    assert set(str(caught.value).splitlines()) == {"a", "b"}


def test_a_limit_ends_one_and_the_other_is_given_up() -> None:
    def limited() -> None:
        with deadline(0.3, "job a"):
            wait(60)

    late, other = FakeTurn(0, [Piece("a", cpus(1), limited)]), FakeTurn(1, [Piece("b", cpus(1), lambda: wait(60))])
    with pytest.raises(JobTimeout, match="job a ran past its limit"):
        Schedule([late, other], [(), ()], total(2)).run()
    assert other.told == ["begin", "give up"]


def test_what_ended_well_while_others_were_given_up_counts() -> None:
    def fail() -> None:
        wait(0.2)
        raise JobFailed("x")

    def stubborn() -> int:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                time.sleep(0.05)
            except KeyboardInterrupt:
                continue
        return 7

    done = FakeTurn(1, [Piece("s", cpus(1), stubborn)])
    with pytest.raises(JobFailed):
        Schedule([FakeTurn(0, [Piece("f", cpus(1), fail)]), done], [(), ()], total(2)).run()
    assert (done.told, done.results) == (["begin", "end"], [7])


def test_a_signal_ends_all_threads() -> None:
    turns = [FakeTurn(number, [Piece(str(number), cpus(1), lambda: wait(60))]) for number in range(3)]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()

    def run() -> None:
        with interruptible():
            Schedule(turns, [(), (), ()], total(3)).run()

    with pytest.raises(RunInterrupted):
        run()
    assert time.monotonic() - began < 10
    assert [turn.told for turn in turns] == [["begin", "give up"]] * 3


def test_a_defect_ends_the_others_too() -> None:
    def break_() -> None:
        wait(0.1)
        raise ZeroDivisionError("a defect")

    other = FakeTurn(1, [Piece("b", cpus(1), lambda: wait(60))])
    with pytest.raises(ZeroDivisionError):
        Schedule([FakeTurn(0, [Piece("a", cpus(1), break_)]), other], [(), ()], total(2)).run()
    assert other.told == ["begin", "give up"]


def test_threads_have_the_main_one_call() -> None:
    def ask() -> bool:
        return in_main_thread(lambda: threading.current_thread() is threading.main_thread())

    def ask_for_trouble() -> None:
        in_main_thread(lambda: int("x"))

    turn = FakeTurn(0, [Piece("a", cpus(1), ask)])
    Schedule([turn], [()], total(1)).run()
    assert turn.results == [True]
    with pytest.raises(ValueError, match="invalid literal"):
        Schedule([FakeTurn(0, [Piece("a", cpus(1), ask_for_trouble)])], [()], total(1)).run()


def node(name: str, cpu: float = 0, gpu: float = 0, **labels: str) -> Node:
    return Node(name, {"CPU": cpu, "GPU": gpu}, labels)


def of(**resources: Any) -> Demand:
    return Demand(Resources.model_validate(resources))


TWO = Cluster((node("a", 4, 2), node("b", 4, 2, zone="x")), {}, local=False)


@pytest.mark.parametrize(
    ("demands", "fits"),
    [
        ([of(num_workers=8)], True),
        ([of(num_workers=8), of()], False),
        ([of(num_cpus=3), of(num_cpus=3)], True),
        ([of(num_cpus=3), of(num_cpus=3), of(num_cpus=2)], False),  # 2 CPUs are left, on two nodes
        ([of(num_gpus=0.5)] * 8, True),
        ([of(num_gpus=0.5, num_cpus=0)] * 9, False),
        ([of(num_workers=4, strategy="STRICT_PACK"), of(num_workers=4, strategy="STRICT_PACK")], True),
        ([of(num_cpus=2), of(num_workers=4, strategy="STRICT_PACK"), of(num_workers=3, strategy="STRICT_PACK")], False),
        ([of(num_workers=2, num_cpus=4, strategy="STRICT_SPREAD")], True),
        ([of(), of(num_workers=2, num_cpus=4, strategy="STRICT_SPREAD")], False),
        ([of(num_cpus=4, label_selector={"zone": "x"})], True),
        ([of(num_cpus=4, label_selector={"zone": "x"}), of(label_selector={"zone": "x"})], False),
        ([Demand(of(num_workers=8).workers, tasks=True)], False),  # no CPU is left for tasks
        ([Demand(of(num_workers=7).workers, tasks=True)], True),
    ],
)
def test_room(demands: list[Demand], fits: bool) -> None:
    assert fit_together(demands, TWO) is fits


def test_what_works_in_this_process_takes_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    recipe = Demand(processors=1, tasks=True)
    local = Cluster((node("here", 2),), {}, local=True)
    assert fit_together([recipe, recipe], local)
    assert not fit_together([recipe] * 3, local)
    assert not fit_together([of(num_workers=2), recipe], local)
    assert fit_together([of(), recipe], local)
    assert fit_together([of(num_workers=7), recipe, recipe], TWO)  # on a cluster their tasks share a CPU
    assert not fit_together([of(num_workers=8), recipe], TWO)
