"""Work ahead: in order, together, within bounds, and gone when closed."""

import threading

import pytest

from tpo_core.data.prefetch import JOBS_PER_WORKER, THREAD_NAME, Prefetcher

WAIT_S = 10.0  # until a test that hangs fails instead


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_the_order_of_the_jobs(workers):
    with Prefetcher(range(40), lambda job: job * job, workers) as results:
        assert list(results) == [job * job for job in range(40)]
        assert list(results) == []


def test_a_slow_job_is_waited_for_though_the_next_one_is_done():
    second_done = threading.Event()

    def work(job):
        if job == 0:
            assert second_done.wait(WAIT_S)
        if job == 1:
            second_done.set()
        return job

    with Prefetcher(range(3), work, 2) as results:
        assert list(results) == [0, 1, 2]


@pytest.mark.parametrize("workers", [2, 4])
def test_threads_work_at_the_same_time(workers):
    together = threading.Barrier(workers)
    with Prefetcher(range(2 * workers), lambda job: together.wait(WAIT_S), workers) as results:
        assert len(list(results)) == 2 * workers


def test_without_workers_a_job_is_done_when_it_is_asked_for_by_who_asks():
    done = []
    with Prefetcher(range(3), lambda job: done.append((job, threading.current_thread())), 0) as results:
        assert done == []
        next(results)
        assert done == [(0, threading.current_thread())]
        assert loader_threads() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_prepared_than_the_bound(workers):
    read = []

    def jobs():
        for job in range(100):
            read.append(job)
            yield job

    with Prefetcher(jobs(), lambda job: job, workers) as results:
        for taken in range(20):
            assert len(read) <= JOBS_PER_WORKER * workers + taken
            next(results)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_an_exception_comes_in_place_of_its_result_and_ends_the_iterator(workers):
    def work(job):
        if job in (3, 4):
            raise ValueError(f"planted {job}")
        return job

    with Prefetcher(range(9), work, workers) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="planted 3"):
            next(results)
        assert loader_threads() == []
        assert list(results) == []


def test_an_early_failure_does_not_overtake_an_earlier_job():
    failed = threading.Event()

    def work(job):
        if job == 1:
            failed.set()
            raise ValueError("planted")
        assert failed.wait(WAIT_S)
        return job

    with Prefetcher(range(4), work, 2) as results:
        assert next(results) == 0
        with pytest.raises(ValueError, match="planted"):
            next(results)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_job_that_raises_stop_iteration_is_not_the_end(workers):
    with Prefetcher(range(3), lambda job: next(iter(())), workers) as results, pytest.raises(RuntimeError):
        next(results)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_at_any_point_joins_the_threads(workers, taken):
    results = Prefetcher(range(1000), lambda job: job, workers)
    assert [next(results) for _ in range(taken)] == list(range(taken))
    results.close()
    assert loader_threads() == []
    assert list(results) == []
    results.close()


def test_closing_waits_for_jobs_in_hand_and_starts_no_other():
    release, started, finished = threading.Event(), [], []

    def work(job):
        started.append(job)
        assert release.wait(WAIT_S)
        finished.append(job)

    results = Prefetcher(range(100), work, 2)
    opener = threading.Timer(0.05, release.set)
    opener.start()
    results.close()
    opener.join()
    assert sorted(started) == sorted(finished)
    assert len(started) <= 2, "what waited for a thread was dropped"


def test_an_exception_of_the_consumer_closes_too():
    def consume():
        with Prefetcher(range(100), lambda job: job, 2) as results:
            raise KeyError(next(results))

    with pytest.raises(KeyError):
        consume()
    assert loader_threads() == []
