"""Asking the requests of one entry in batches: what travels to where the model is, and how far it has come.

Who carries it out is a `Pool`: `in_process` here, actors of Ray in `tpo_core.evaluation.pool`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tpo_core.data.shards import ShardSet
from tpo_core.data.subtitles import lines_at
from tpo_core.errors import StorageTroubleError, TpoError, in_one_line
from tpo_core.evaluation.answerers import Answerer, Spec
from tpo_core.evaluation.asking import Ask, question_of
from tpo_core.evaluation.captions import cues_of
from tpo_core.evaluation.looking import Shown, shown
from tpo_core.evaluation.pieces import Pieces, batches_of
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.suite import Entry

PART = "test"  # of the shard sets that are made for suites
TELL_EVERY_S = 10.0
Pool = Callable[["Work", Sequence[Sequence[Ask]]], Iterator[int]]


class HopelessError(TpoError):
    """What no entry can be blamed for, and all others would meet too: a model that cannot be loaded, a full disk."""


@dataclass(frozen=True)
class Work:
    """Everything that answering a batch takes; picklable. root: of the data set, for subtitles."""

    spec: Spec
    entry: Entry
    shards_uri: str
    root: str
    pieces: Pieces
    max_new_tokens: int

    def begin(self) -> Desk:
        """Loads the model. HopelessError, after whatever was raised, when it cannot be loaded."""
        shards = ShardSet.open(self.shards_uri)
        try:
            answerer = self.spec.open()
        except Exception as error:
            told = in_one_line(error)
            raise HopelessError(
                told if isinstance(error, TpoError) else f"{self.spec.name} cannot be loaded: {told}"
            ) from error
        return Desk(self, answerer, shards)


@dataclass(frozen=True)
class Desk:
    """A loaded model with the samples that it is asked about."""

    work: Work
    answerer: Answerer
    shards: ShardSet

    def answer(self, asks: Sequence[Ask]) -> int:
        """Asks one batch and keeps the answers; returns how many. A request that cannot be shown fails alone."""
        requests: list[Shown] = []
        failed: list[Record] = []
        for ask in asks:
            try:
                requests.append(self._shown(ask))
            except StorageTroubleError:  # no matter of the request
                raise
            except TpoError as error:
                failed.append(Record(ask.key, failure=f"not_asked: {error}"))
        answered = self.answerer.answer(requests, self.work.max_new_tokens) if requests else []
        self.work.pieces.write([*answered, *failed])
        return len(asks)

    def _shown(self, ask: Ask) -> Shown:
        entry, sample = self.work.entry, self.shards.samples(PART)[ask.sample]
        lines: list[str] = []
        if entry.subtitles is not None and sample.media:
            times_s = self.shards.media(sample.media[0].uri).times_s
            # Not all videos of Video-MME have subtitles; those are asked without.
            lines = lines_at(cues_of(entry, self.work.root, sample.media[0].uri), times_s.tolist())
        question = question_of(entry, sample, ask.form, lines)
        task = "moment" if ask.form == "ground" else entry.task
        return shown(self.shards, ask, task, question, entry.frames)


def in_process(work: Work, batches: Sequence[Sequence[Ask]]) -> Iterator[int]:
    """The pool without a cluster: one model, here, batch after batch."""
    desk = work.begin()
    for batch in batches:
        yield desk.answer(batch)


def ask_all(
    work: Work, asks: Sequence[Ask], batch_size: int, pool: Pool, echo: Callable[[str], None]
) -> dict[str, Record]:
    """The answers to all requests, by key: those that are kept already, and the others, which failed or were never
    asked, asked now.

    `echo` takes a line of progress with the time left, at most one in `TELL_EVERY_S` seconds, and one at the end.
    TpoError when not one of several requests could be asked: that is no matter of a sample.
    """
    kept = work.pieces.read()
    waiting = [ask for ask in asks if ask.key not in kept or kept[ask.key].failure is not None]
    name, began = work.entry.name, time.monotonic()
    if len(waiting) < len(asks):
        echo(f"{name}  {len(asks) - len(waiting)} of {len(asks)} are answered already")
    if not waiting:
        return kept
    told, done = began, 0
    for count in pool(work, batches_of(waiting, batch_size)):
        done += count
        now = time.monotonic()
        if now - told >= TELL_EVERY_S and done < len(waiting):
            left_s, told = (now - began) / done * (len(waiting) - done), now
            echo(f"{name}  {done}/{len(waiting)}  {left_s:.0f} s left")
    echo(f"{name}  {done}/{len(waiting)}  in {time.monotonic() - began:.0f} s")
    answered = work.pieces.read()
    failures = [answered[ask.key].failure for ask in asks]
    if len(failures) > 1 and None not in failures:
        raise TpoError(f"{name}: none of {len(failures)} requests could be asked ({failures[0]})")
    return answered
