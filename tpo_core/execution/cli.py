"""How an entry point ends: 0 done, 1 a failed run (with its traceback, if that says anything), 2 a user's mistake."""

import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from tpo_core.errors import RunFailedError, TpoError
from tpo_core.execution.messages import one_line

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def main_guard(fn: Callable[[], int | None]) -> NoReturn:
    """Run `fn` and exit with what it returns (None is 0).

    TpoError prints `error: ...` on stderr and exits 2, RunFailedError prints the same and exits 1; any other exception
    prints its traceback and exits 1. SIGINT and SIGTERM unwind the stack, so that leases are given back and partial
    output stays, and exit 130 or 143.
    """
    asked: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        print("terminated: the same command goes on from here", file=sys.stderr)
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = fn()
    except SystemExit as error:  # which Ray (2.60) makes one of status 1 when it comes while it waits
        sys.exit(TERMINATED if asked else error.code)
    except (TpoError, RunFailedError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, TpoError) else 1)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(code)
