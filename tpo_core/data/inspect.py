"""Shows what a reader makes of a dataset, before anything is spent on it.

    python -m tpo_core.data.inspect FORMAT --root URI [--split S] [--option k=v ...] [--jsonl] [--draw N [--out DIR]]

Prints counts, rejects by reason with an example of each, histograms of moment lengths and box sizes, and the first
samples. No media is opened, unless samples are drawn.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tpo_core.data.readers import READERS, Reader, Reject
from tpo_core.data.readers.jsonl import to_json
from tpo_core.data.sample import Sample, Target
from tpo_core.errors import TpoError

SHOWN_SAMPLES = 3
BAR_WIDTH = 40
MOMENT_EDGES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
BOX_EDGES_PX = (0.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
SHARE_EDGES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)

EXAMPLES = """examples:
  python -m tpo_core.data.inspect qvhighlights --root s3://bucket/qvh --split val
  python -m tpo_core.data.inspect refcoco --root data --option dataset=refcocog --option split_by=umd
  python -m tpo_core.data.inspect charades_sta --root data/charades --draw 8 --out /tmp/look
  python -m tpo_core.data.inspect mevis --root data/mevis --jsonl > mine/train.jsonl
  python -m tpo_core.data.inspect jsonl --root mine

Exit status: 0, or 2 after a one-line error when something asked for is not there."""


@dataclass
class Summary:
    """Counts over the items of one split; lengths in seconds, box sizes as the square root of the area in pixels."""

    samples: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    media: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Reject] = field(default_factory=dict)
    moment_s: list[float] = field(default_factory=list)
    moment_share: list[float] = field(default_factory=list)
    box_px: list[float] = field(default_factory=list)
    first: list[Sample] = field(default_factory=list)

    def add(self, item: Sample | Reject) -> None:
        """Counts one item of a reader."""
        if isinstance(item, Reject):
            self.reasons[item.reason] += 1
            self.examples.setdefault(item.reason, item)
            return
        self.samples[item.task] += 1
        self.flags.update(item.provenance.flags)
        self.media.update(media.uri for media in item.media)
        duration_s = item.media[0].sample_duration_s() if item.media else None
        for target in item.targets:
            if target.span_s is not None:
                self.moment_s.append(target.span_s[1] - target.span_s[0])
                if duration_s:
                    self.moment_share.append(self.moment_s[-1] / duration_s)
            self.box_px.extend(_box_sizes(target))
        if len(self.first) < SHOWN_SAMPLES:
            self.first.append(item)


def _box_sizes(target: Target) -> list[float]:
    boxes = [target.box, *(entry.box for entry in target.track or () if entry.visible)]  # only these are checked
    return [((box[2] - box[0]) * (box[3] - box[1])) ** 0.5 for box in boxes if box is not None]


def histogram(values: Sequence[float], edges: Sequence[float], unit: str) -> list[str]:
    """One text bar a bin [edge, next edge); the last bin is open. Empty when there are no values."""
    counts = Counter(max(i for i, edge in enumerate(edges) if value >= edge) for value in values)
    lines = []
    for i, edge in enumerate(edges):
        upper = f"{edges[i + 1]:g}" if i + 1 < len(edges) else "more"
        bar = "#" * round(BAR_WIDTH * counts[i] / max(counts.values(), default=1))
        lines.append(f"  {f'{edge:g} - {upper} {unit}':>16} {counts[i]:>8}  {bar}".rstrip())
    return lines if values else []


def report(summary: Summary, echo: Callable[[str], None]) -> None:
    """Prints a summary for people."""
    total, rejected = sum(summary.samples.values()), sum(summary.reasons.values())
    tasks = ", ".join(f"{count} {task}" for task, count in summary.samples.most_common()) or "none"
    echo(f"samples   {total} ({tasks}) on {len(summary.media)} media")
    share = f" ({rejected / (total + rejected):.2%} of the records)" if rejected else ""
    echo(f"rejected  {rejected}{share}")
    for reason, count in summary.reasons.most_common():
        example = summary.examples[reason]
        echo(f"  {reason:<20} {count:>8}  e.g. {example.uri}: {example.detail}")
    for flag, count in summary.flags.most_common():
        echo(f"changed   {flag:<20} {count:>8}")
    for title, values, edges, unit in (
        ("moment length", summary.moment_s, MOMENT_EDGES_S, "s"),
        ("moment length as a share of the media", summary.moment_share, SHARE_EDGES, ""),
        ("box size, square root of the area", summary.box_px, BOX_EDGES_PX, "px"),
    ):
        if values:
            echo(f"{title}, n = {len(values)}")
        for line in histogram(values, edges, unit):
            echo(line)
    for sample in summary.first:
        echo(f"sample    {sample.sample_id}")
        for media in sample.media:
            echo(f"  {media.kind}: {media.uri}")
        for turn in sample.turns:
            echo(f"  {turn.role}: {turn.text}")
        for target in sample.targets:
            echo(f"  target: {_describe(target)}")


def _describe(target: Target) -> str:
    parts = [target.kind]
    if target.span_s is not None:
        parts.append(f"{target.span_s[0]:g} - {target.span_s[1]:g} s")
    if target.box is not None:
        parts.append("box " + ", ".join(f"{value:g}" for value in target.box))
    if target.frame is not None:
        parts.append(f"on frame {target.frame}")
    if target.track is not None:
        visible = sum(entry.visible for entry in target.track)
        parts.append(f"{len(target.track)} frames, visible on {visible}")
    if target.saliency is not None:
        parts.append(f"{len(target.saliency.clip_ids)} clips of {target.saliency.clip_len_s:g} s")
    return " ".join(parts)


def _options(pairs: Iterable[str]) -> dict[str, str]:
    options = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise TpoError(f"--option takes NAME=VALUE, not {pair!r}")
        options[name] = value
    return options


def describe_readers() -> str:
    """The formats with the files that they expect and their options, for --help."""
    lines = ["formats (paths are below the root; {split} is the split):"]
    for reader in READERS.values():
        lines += [f"  {reader.name}: {reader.summary}", f"    files: {reader.layout}"]
        for name, option in reader.options.items():
            choices = f" [{'|'.join(option.choices)}]" if option.choices else ""
            lines.append(f"    --option {name}={option.default or '...'}{choices}: {option.help}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tpo_core.data.inspect",
        description="Reads a dataset in its own format and shows what the platform makes of it: "
        "samples, rejects with their reasons, sizes. Opens no media unless --draw is given.",
        epilog=f"{describe_readers()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", metavar="FORMAT", help=", ".join(READERS))
    parser.add_argument("--root", required=True, help="folder of the dataset: a path, file:// or s3://")
    parser.add_argument(
        "--split", help="split of the dataset, in its own name (default: that of the format, mostly train)"
    )
    parser.add_argument("--option", action="append", default=[], metavar="K=V", help="option of the format, repeatable")
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help='print one canonical sample a line instead; rejects are lines {"rejected": {uri, reason, detail}}',
    )
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="draw the labels of the first N samples")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the drawings, one PNG a sample (default: inspect-FORMAT)"
    )
    return parser


def _reader(name: str) -> Reader:
    if name not in READERS:
        raise TpoError(f"unknown format {name!r}; known: {', '.join(READERS)}")
    return READERS[name]


def run(arguments: Sequence[str]) -> None:
    """The command. TpoError for a user's mistake."""
    args = _parser().parse_args(arguments)
    reader = _reader(args.format)
    if args.out is not None and args.draw <= 0:
        raise TpoError("--out DIR needs --draw N: how many samples to draw there")
    folder = Path(args.out if args.out is not None else f"inspect-{reader.name}")
    split = args.split if args.split is not None else reader.default_split
    items = reader.read(args.root, split, _options(args.option))
    summary = Summary()
    drawn: list[Sample] = []
    for item in items:
        summary.add(item)
        if args.jsonl:
            print(to_json(item))
        if isinstance(item, Sample) and len(drawn) < args.draw:
            drawn.append(item)
    if not args.jsonl:
        report(summary, print)
    if drawn:
        from tpo_core.data.drawing import draw_samples  # brings in the decoders, which only this needs

        told = sys.stderr if args.jsonl else sys.stdout
        for line in draw_samples(drawn, args.root, folder):
            print(line, file=told)
        print(f"drawings are in {folder}/", file=told)
    if not summary.samples:
        raise TpoError(f"{reader.name}: split {split!r} of {args.root} gives no samples; see the rejects above")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake is one line on standard error and status 2."""
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
