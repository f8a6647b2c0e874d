"""Work done ahead of its consumer by threads, and handed over in order.

Threads, not processes: decoding JPEG, resizing and normalising release the GIL, the mapped shards are shared, and
nothing is pickled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

JOBS_PER_WORKER = 2  # one in hand and one finished or next: kinds take unequal time
THREAD_NAME = "tpo-loader"

J = TypeVar("J")
T = TypeVar("T")


class Prefetcher(Generic[J, T]):
    """Iterator over `work(job)` of all jobs, in their order; a context manager.

    `workers` threads run at most JOBS_PER_WORKER * workers jobs ahead of the consumer; with 0 it does the work itself
    as it asks. What a job raises is raised by the iteration that would have returned its result, and ends the iterator.
    Closing, at any point, waits for the jobs in hand and joins the threads. `jobs` is read in the consumer's thread.
    """

    def __init__(self, jobs: Iterable[J], work: Callable[[J], T], workers: int) -> None:
        self._jobs, self._work = iter(jobs), work
        self._pool = ThreadPoolExecutor(workers, THREAD_NAME) if workers else None
        self._depth = JOBS_PER_WORKER * workers or 1
        self._ahead: deque[Callable[[], T]] = deque()  # each returns or raises what its job did
        self._results = self._deliver()
        self._fill()

    def __enter__(self) -> Prefetcher[J, T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._results)

    def close(self) -> None:
        """Drops what was prepared and joins the threads. May be called twice."""
        self._jobs = iter(())
        self._ahead.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _deliver(self) -> Iterator[T]:
        """A generator, so that a job that raises StopIteration is not taken for the end."""
        try:
            while self._ahead:
                yield self._take()
        finally:
            self.close()

    def _take(self) -> T:
        result = self._ahead.popleft()
        self._fill()  # before waiting, so that no thread idles
        return result()

    def _fill(self) -> None:
        for job in islice(self._jobs, self._depth - len(self._ahead)):
            if self._pool is None:
                self._ahead.append(partial(self._work, job))
            else:
                self._ahead.append(self._pool.submit(self._work, job).result)
