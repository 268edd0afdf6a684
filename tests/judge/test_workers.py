"""A background thread that ends before it is stopped is a failure that the health check shows."""

import threading

from moe_serve.judge.workers import Workers


def _ended(workers: Workers) -> None:
    for thread in threading.enumerate():
        if thread.name == "moe-serve-test":
            thread.join(5)
    assert not any(thread.name == "moe-serve-test" for thread in threading.enumerate())


def test_worker_that_raises_is_a_failure_with_its_reason() -> None:
    def run(stop: threading.Event) -> None:
        raise ValueError("no such port")

    workers = Workers()
    assert workers.failure() is None
    workers.start("moe-serve-test", run, threading.Event())
    _ended(workers)
    assert workers.failure() == "moe-serve-test ended: ValueError: no such port"


def test_worker_that_returns_before_it_is_stopped_is_a_failure() -> None:
    workers = Workers()
    workers.start("moe-serve-test", lambda stop: None, threading.Event())
    _ended(workers)
    assert workers.failure() == "moe-serve-test ended: it returned"


def test_worker_that_exits_its_thread_is_a_failure() -> None:
    def run(stop: threading.Event) -> None:
        raise SystemExit(0)

    workers = Workers()
    workers.start("moe-serve-test", run, threading.Event())
    _ended(workers)
    assert workers.failure() == "moe-serve-test ended: SystemExit: 0"


def test_worker_that_runs_or_was_stopped_is_no_failure() -> None:
    workers, stop = Workers(), threading.Event()
    workers.start("moe-serve-test", lambda stopped: stopped.wait() and None, stop)
    assert workers.failure() is None
    stop.set()
    _ended(workers)
    assert workers.failure() is None
