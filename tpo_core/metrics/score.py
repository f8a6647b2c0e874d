"""python -m tpo_core.metrics.score METRIC --ground-truth PATH --predictions PATH [--implementation NAME] [--json]

Scores a file of predictions against the truth as a named official implementation does. `METRIC --help` says which files
the metric reads and which implementations and options it has.

The numbers have their official names. What is degenerate (missing, empty, NaN, reversed, ...) is rejected: it counts as
a miss, and how much there was of it is told with the first examples. With --strict-official it has instead the effect
that it has in the official code. `scored n/N` says over how many of the truths the numbers are means.
Exit status 0, or 2 with one line for what is wrong with the files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import METRICS, Scorer, score, scorer

_PROGRAM = "python -m tpo_core.metrics.score"


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise TpoError(f"{message}; see {self.prog} --help")


def _metric_parser(one: Scorer) -> argparse.ArgumentParser:
    """The command line of one metric."""
    parser = _Parser(
        prog=f"{_PROGRAM} {one.name}",
        description=f"{one.name}: {METRICS[one.name]}\n\n{one.reads.strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="PATH", help="the truth, as above")
    parser.add_argument("--predictions", type=Path, required=True, metavar="PATH", help="the predictions, as above")
    names = ", ".join(one.implementations)
    parser.add_argument("--implementation", metavar="NAME", help=f"{names} (default: {one.implementations[0]})")
    parser.add_argument(
        "--strict-official", action="store_true", help="degenerate input has its effect in the official code"
    )
    parser.add_argument("--json", action="store_true", help="everything, per item, as one JSON object")
    for option in one.options:
        flag = f"--{option.name.replace('_', '-')}"
        if option.type is bool:
            parser.add_argument(flag, action="store_true", help=option.help)
        else:
            parser.add_argument(
                flag, type=option.type, default=option.default, metavar=option.name.upper(), help=option.help
            )
    return parser


def _list_parser() -> argparse.ArgumentParser:
    """What is there, for a command line that does not open with a metric."""
    parser = _Parser(
        prog=_PROGRAM,
        description="\n".join([(__doc__ or "").partition("\n\n")[2], *(f"  {k:<17}{v}" for k, v in METRICS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("metric", metavar="METRIC", help="one of the above")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0].startswith("-"):
            _list_parser().parse_args(words[:1])
        one = scorer(words[0])
        args = vars(_metric_parser(one).parse_args(words[1:]))
        as_json = args.pop("json")
        report = score(one.name, **args)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.as_json() if as_json else report.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
