"""Turns published checkpoints into models of this platform, and back.

    python -m tpo_core.models.convert videochat-tpo --from DIR --to DIR

Weights pass through one by one, so that 16 GB need a few GB of memory. An output is written aside and moved to its
place when it is whole; nothing is ever overwritten.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.models.convert.layout import Layout, Sizes
from tpo_core.models.convert.manifest import check_manifest, read_manifest
from tpo_core.models.convert.output import written_aside
from tpo_core.models.convert.sam2 import read_facebook, save_hf
from tpo_core.models.convert.videochat2_mistral import convert_base
from tpo_core.models.convert.videochat_tpo import convert, publish

MANIFEST = Path(__file__).resolve().parents[3] / "tests" / "golden" / "models" / "videochat_tpo_manifest.json"
INTERRUPTED = 130

EXAMPLES = """examples:
  python -m tpo_core.models.convert videochat-tpo --check-manifest
      shows, without weights, where each of the 2594 published tensors goes
  python -m tpo_core.models.convert videochat-tpo --from VideoChat-TPO --to models/videochat_tpo
      then: python -m tpo_core.inference --model models/videochat_tpo --video clip.mp4 "Where is the dog?"
      or model.base=models/videochat_tpo in a recipe
  python -m tpo_core.models.convert videochat-tpo --to-published --from runs/tpo/multitask/model --to published
      a trained model under the published names; it needs the folder `published` of the model it came from
  python -m tpo_core.models.convert videochat2-mistral --from VideoChat2-Mistral --to models/videochat2
      the base of TPO: model.base=models/videochat2 in a recipe
  python -m tpo_core.models.convert sam2 --from sam2_hiera_large.pt --to models/sam2
      the tracker of the mask head: model.mask.sam2.source=models/sam2 in a recipe

Exit status: 0; 1 when the manifest does not fit; 2 after a one-line error when the input or the output is not as it
must be."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m tpo_core.models.convert",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = top.add_subparsers(dest="kind", required=True, metavar="KIND")
    tpo = _kind(kinds, "videochat-tpo", "the published VideoChat-TPO, there and back", required=False)
    tpo.add_argument(
        "--check-manifest",
        nargs="?",
        const=MANIFEST,
        metavar="PATH",
        help="check names and shapes of all published tensors (default: those of the release), and convert only if they"
        " fit and --from and --to are given",
    )
    tpo.add_argument("--to-published", action="store_true", help="the way back: --from is a model of this platform")
    base = _kind(kinds, "videochat2-mistral", "VideoChat2-Mistral, the base that TPO starts from", required=True)
    for each in (tpo, base):
        each.add_argument(
            "--like",
            metavar="DIR",
            help="a model of this platform that has the sizes of the source (default: published)",
        )
    _kind(kinds, "sam2", "a .pt file of facebookresearch/sam2, hiera-large of 2.0 or 2.1", required=True, source="FILE")
    return top


def _kind(kinds: Any, name: str, about: str, *, required: bool, source: str = "DIR") -> argparse.ArgumentParser:
    each: argparse.ArgumentParser = kinds.add_parser(
        name, help=about, description=about, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    each.add_argument(
        "--from",
        dest="source",
        required=required,
        metavar=source,
        help="what to convert; a DIR can be a URI or a hub name too",
    )
    each.add_argument("--to", dest="target", required=required, metavar="DIR", help="new folder or URI")
    return each


def run(arguments: Sequence[str]) -> int:
    """The command. TpoError for a user's mistake."""
    args = parser().parse_args(arguments)
    if args.kind == "videochat-tpo":
        return _videochat_tpo(args)
    if args.kind == "videochat2-mistral":
        _told(convert_base(args.source, args.target, args.like), args.target)
    else:
        facebook = read_facebook(args.source)
        with written_aside(args.target) as folder:
            save_hf(facebook, folder)
        _told([], args.target)
    return 0


def _videochat_tpo(args: argparse.Namespace) -> int:
    if args.check_manifest is not None:
        layout = Layout(Sizes.published() if args.like is None else Sizes.of_folder(args.like))
        report = check_manifest(read_manifest(args.check_manifest), layout)
        print("\n".join(report.lines))
        if report.wrong or (args.source is None and args.target is None):
            return 1 if report.wrong else 0
    if args.source is None or args.target is None:
        raise TpoError("videochat-tpo needs --from and --to, or --check-manifest: see --help")
    if args.to_published and args.like is not None:
        raise TpoError("--to-published takes the sizes from --from: leave --like out")
    if args.to_published:
        publish(args.source, args.target)
        _told([], args.target)
    else:
        _told(convert(args.source, args.target, args.like), args.target)
    return 0


def _told(remarks: list[str], target: str) -> None:
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    print(f"written {target}")


def main(arguments: Sequence[str] | None = None) -> int:
    """`run` with errors told in one line."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
