"""A `FrameReader` runs decoders in a child process that may be killed.

Damaged files make native decoders hang, leak or crash, and decord bundles an ffmpeg of 2021: so files are only ever
opened in a child, one request at a time, under a deadline. A child that overruns or dies is replaced, and each child is
retired after `RECYCLE_AFTER` requests. Videos go to the decoder that suits their size, and to PyAV when that fails.
Decoding, resizing and JPEG encoding all happen in the child, so that raw frames need not cross the pipe. A child takes
about 60 MiB before its first file and 82 MiB at its peak with a film of ten minutes at 720p (held below 150 by a test),
and 130 MiB at 4k. What the main file of its parent imports comes on top, since a spawned child imports that too: 44 MiB
in a Ray worker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType

from tpo_core.data.decode import VIDEO_DECODERS, Decoder, decode_stills
from tpo_core.data.fetch import local_copy
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest, NotTheMediaError
from tpo_core.errors import TpoError

RECYCLE_AFTER = 2000  # requests; decord is known to leak (18 MB after 2,000 clips of 96 px), a new child costs seconds
START_DEADLINE_S = 120.0  # imports of a child on a busy machine


def _serve(connection: Connection, _decoders: tuple[Decoder, ...]) -> None:
    """The child: answers (decoder, request) with DecodedMedia, or with the text of what went wrong. It gets the
    decoders at the start already, so that importing them does not count against the first deadline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send("ready")
    while True:
        try:
            decoder, request = connection.recv()
        except EOFError:
            return
        try:
            answer = decoder(request)
        except (NotTheMediaError, TpoError) as error:
            answer = error
        except Exception as error:  # whatever a decoder throws at a bad file is the answer; the parent raises it
            answer = " ".join(str(error).split())[:300] or type(error).__name__
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the main thread may hang in native code


class _Gone(str):
    """What is told of a child that ran out of time or died: it may be the machine's fault."""


class FrameReader:
    """Reads media through one child process; a context manager, not thread-safe.

    Args:
        deadline_s: seconds after which a decoder is given up on one file and its process killed.
        decoders: tried in turn on videos; importable functions, since they run in the child.
    """

    def __init__(self, *, deadline_s: float, decoders: Sequence[Decoder] = VIDEO_DECODERS) -> None:
        self.deadline_s = deadline_s
        self.decoders = tuple(decoders)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._served = 0

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when none runs."""
        return self._process.pid if self._process is not None else None

    def decode(self, request: DecodeRequest) -> DecodedMedia:
        """Answers one request.

        Raises:
            DecodeError: no decoder could read it, in one line with the text of each. The reader stays usable.
            NotTheMediaError, TpoError: the storage failed, after all the attempts of `tpo_core.storage`, or the
                encoder of clip features did.
        """
        if request.kind != "video":
            return self._first_that_can((decode_stills,), request, request.uri)
        try:
            with local_copy(request.uri) as here:
                return self._first_that_can(self.decoders, replace(request, uri=here), request.uri)
        except FileNotFoundError as error:
            raise DecodeError(request.uri, str(error)) from None

    def _first_that_can(self, decoders: Sequence[Decoder], request: DecodeRequest, name: str) -> DecodedMedia:
        texts: dict[str, str] = {}
        for decoder in decoders:
            answer = self._ask(decoder, request)
            if isinstance(answer, DecodedMedia):
                return answer
            if isinstance(answer, (NotTheMediaError, TpoError)):
                raise answer
            texts[decoder.__name__.removeprefix("decode_with_")] = answer
        passing = any(isinstance(text, _Gone) for text in texts.values())
        if len(set(texts.values())) == 1:
            raise DecodeError(name, next(iter(texts.values())), passing=passing)
        told = "; ".join(f"{decoder}: {text}" for decoder, text in texts.items())
        raise DecodeError(name, told, passing=passing)

    def _ask(self, decoder: Decoder, request: DecodeRequest) -> DecodedMedia | NotTheMediaError | TpoError | str:
        if self._served >= RECYCLE_AFTER:
            self.close()
        process, connection = self._child()
        self._served += 1
        try:
            connection.send((decoder, request))
            if not connection.poll(self.deadline_s):
                self.close()
                return _Gone(f"no answer within {self.deadline_s:g} s")
            return connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            process.join()
            self.close()
            return _Gone(f"the decoding process died (exit code {process.exitcode})")

    def _child(self) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        if self._process is None or self._connection is None:
            spawn = multiprocessing.get_context("spawn")
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(there, self.decoders), daemon=True)
            process.start()
            there.close()
            self._process, self._connection, self._served = process, here, 0
            try:
                started = here.poll(START_DEADLINE_S) and here.recv() == "ready"
            except EOFError:
                started = False
            if not started:
                self.close()
                raise RuntimeError(f"the decoding process did not start (exit code {process.exitcode})")
        return self._process, self._connection

    def close(self) -> None:
        """Ends the child, if one runs; a later request starts a new one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()  # it holds nothing that needs saving
            self._process.join()
        self._process = self._connection = None
