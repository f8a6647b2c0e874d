"""Asks a trained model about a video or an image.

    python -m tpo_core.inference --model URI --video FILE "where is the red car?" --draw out.png

Prints the answer and what the heads gave: boxes and masks in pixels of the media, moments in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tpo_core.data.example import Example
from tpo_core.data.record import Box
from tpo_core.errors import TpoError
from tpo_core.evaluation.reply_card import ReplyItem, reply_card
from tpo_core.inference.assistant import MAX_NEW_TOKENS, load
from tpo_core.inference.reply import Reply, Request

SHOWN_MOMENTS = 3
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

EXAMPLES = """examples:
  python -m tpo_core.inference --model runs/quickstart/multitask/model --video clip.mp4 "When does the ball move?"
  python -m tpo_core.inference --model s3://bucket/model --image street.jpg "Where is the red car?" --draw car.png
  python -m tpo_core.inference --model M --video clip.mp4 --at 3.5 "Where is the dog?"    one frame, as in training
  python -m tpo_core.inference --model M --video clip.mp4 --box 10,20,90,110 "Follow {box}." --json > track.json

Exit status: 0, or 2 after a one-line error when something asked for is not there."""


def box_of(text: str) -> Box:
    """x0,y0,x1,y1 in pixels. TpoError when it is not four numbers."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        raise TpoError(f"--box takes x0,y0,x1,y1 in pixels, not {text!r}") from None
    return left, top, right, bottom


def count_of(text: str) -> int:
    """A whole number from 1. TpoError when it is none."""
    if not text.isdecimal() or int(text) < 1:
        raise TpoError(f"--max-new-tokens takes a whole number from 1, not {text!r}")
    return int(text)


def write_picture(item: ReplyItem, file: Path) -> None:
    """The picture of `--draw`. TpoError when it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        reply_card(item).save(file)
    except OSError as error:
        raise TpoError(f"--draw {file} cannot be written ({error.strerror}): give another place") from error


def lines(reply: Reply) -> list[str]:
    """What the command prints."""
    told = [reply.readable or "(no answer)"]
    told += ["box     " + " ".join(f"{value:.1f}" for value in box) + "  xyxy px" for box in reply.boxes]
    told += [f"moment  {m.start_s:.2f} to {m.end_s:.2f} s  score {m.score:.2f}" for m in reply.moments[:SHOWN_MOMENTS]]
    for track in reply.masks:
        present = int(track.masks_THW.any((1, 2)).sum())
        first, last = reply.times_s[0], reply.times_s[-1]
        told.append(f"mask    on {present} of {len(track.masks_THW)} frames, {first:.2f} to {last:.2f} s")
    return told


def picture(question: str, example: Example, reply: Reply) -> ReplyItem:
    """What `--draw` shows."""
    return ReplyItem(
        question=question,
        text=reply.readable,
        frames_THWC=example.frames_THWC,
        times_s=example.times_s,
        duration_s=example.duration_s,
        size_wh=(example.width, example.height),
        boxes=[np.array(box) for box in reply.boxes],
        spans_s=np.array([(m.start_s, m.end_s) for m in reply.moments]).reshape(-1, 2),
        masks=[track.masks_THW for track in reply.masks],
    )


def run(arguments: Sequence[str]) -> None:
    """The command. TpoError for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m tpo_core.inference",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", help="what to ask; {box} stands for the object of --box")
    parser.add_argument("--model", required=True, help="folder or URI of a trained model (`model` of a phase)")
    media = parser.add_mutually_exclusive_group()
    media.add_argument("--video", help="path or URI of a video, or of a folder of frames")
    media.add_argument("--image", help="path or URI of an image")
    parser.add_argument("--at", type=float, metavar="SECONDS", help="ask about the frame shown then, alone")
    parser.add_argument("--box", metavar="X0,Y0,X1,Y1", help="an object that the question is about, pixels")
    parser.add_argument("--max-new-tokens", type=count_of, default=MAX_NEW_TOKENS, help="longest answer (%(default)s)")
    parser.add_argument("--device", help="torch device; default a GPU where there is one")
    parser.add_argument("--draw", type=Path, metavar="PNG", help="draw boxes, moments and masks on frames there")
    parser.add_argument("--json", action="store_true", help="print one JSON object, masks as COCO run lengths")
    args = parser.parse_args(arguments)
    box = None if args.box is None else box_of(args.box)
    request = Request(args.video or args.image, args.question, box_xyxy=box, at_s=args.at)
    if args.draw is not None and request.media is None:
        raise TpoError("--draw needs --video or --image: there is nothing to draw on")
    if args.draw is not None and args.draw.suffix.lower() not in PICTURES:
        raise TpoError(f"--draw {args.draw} is no picture file: end its name in {' or '.join(PICTURES)}")
    ((example, reply),) = load(args.model, args.device).shown_and_said([request], max_new_tokens=args.max_new_tokens)
    print(json.dumps(reply.row()) if args.json else "\n".join(lines(reply)))
    if args.draw is not None:
        write_picture(picture(args.question, example, reply), args.draw)
        print(f"drawn   {args.draw}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """`run` with errors told in one line."""
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
