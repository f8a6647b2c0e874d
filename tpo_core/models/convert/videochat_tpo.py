"""The published VideoChat-TPO as a model of ours, and back, bit for bit.

Our folder is the saved layout of `models/tpo.py` with two folders in it: `sam2`, a Hugging Face SAM2 video model, and
`published`, with the tensors that nothing reads.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.models.convert.checkpoint import FLOATS, Checkpoint, Header, Wanted, write_shards
from tpo_core.models.convert.layout import SAM2_FOLDER, Layout, Sizes, sam2_folder
from tpo_core.models.convert.output import progress, written_aside
from tpo_core.models.convert.places import Place, Room, constants, places, to_ours, to_published
from tpo_core.models.convert.sam2 import PUBLISHED_PREFIX, save_hf, to_facebook
from tpo_core.models.convert.settings import copy_tokenizer, write_settings
from tpo_core.models.task_tokens import TASK_TOKENS
from tpo_core.models.videochat2.published import POSITION_IDS
from tpo_core.models.videochat2.tokenizer import MODEL_FILE
from tpo_core.storage.commit import SUCCESS

UNUSED_FOLDER = "published"
UNUSED_FILE = "unused.safetensors"
TORCH_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
DOWNLOAD = "download it again, or give --like with a model of its sizes"


def wanted(of: Mapping[str, Place], headers: Mapping[str, Header]) -> dict[str, Wanted]:
    """What a published checkpoint must hold: all floating-point tensors in one dtype, that of most of them."""
    floats = float_dtypes(headers)
    return {name: Wanted(place.shape, ("I64",) if name == POSITION_IDS else floats) for name, place in of.items()}


def float_dtypes(headers: Mapping[str, Header]) -> tuple[str, ...]:
    """The floating-point dtype of most tensors; all that are accepted where there is none."""
    counts = Counter(header.dtype for header in headers.values() if header.dtype in FLOATS)
    return (counts.most_common(1)[0][0],) if counts else FLOATS


def convert(source: str, target: str, like: str | None = None) -> list[str]:
    """Write a checkpoint under published names as a model of ours; gives remarks for the user.

    source, target: folders or URIs, the source also a name on the hub. like: a model of ours that has the sizes of the
    source; None: the published sizes. Raises TpoError when the source is not, in full, such a checkpoint, or when
    something is at `target` already.
    """
    checkpoint = Checkpoint.open(source)
    layout = Layout(Sizes.published() if like is None else Sizes.of_folder(like))
    rooms = places(layout)
    checkpoint.require(wanted(rooms, checkpoint.headers), DOWNLOAD)
    check_constants(checkpoint, layout)
    (dtype,) = float_dtypes(checkpoint.headers)
    rows = layout.backbone.embedding_VC.shape[0]
    with written_aside(target) as folder:
        write_settings(folder, layout, dtype)
        has_tokenizer = copy_tokenizer(checkpoint.folder, folder, rows=rows, added=TASK_TOKENS)
        _write_weights(folder, checkpoint, rooms, layout)
    return [] if has_tokenizer else [f"{source} has no {MODEL_FILE}: copy that of the base model into {target}"]


def _write_weights(folder: Path, checkpoint: Checkpoint, rooms: Mapping[str, Place], layout: Layout) -> None:
    sizes = {name: header.size_bytes for name, header in checkpoint.headers.items()}
    by_room = {room: {name: sizes[name] for name in sizes if rooms[name].room == room} for room in Room}
    with progress("convert", sum(sizes.values())) as bar:
        write_shards(folder, by_room[Room.MODEL], lambda name: to_ours(name, checkpoint.read(name)), bar.update)
        save_hf({name: checkpoint.read(name) for name in by_room[Room.SAM2]}, folder / SAM2_FOLDER, layout.sizes.sam2)
        (folder / SAM2_FOLDER / SUCCESS).touch()  # so that it can be fetched alone
        bar.update(sum(by_room[Room.SAM2].values()))
        (folder / UNUSED_FOLDER).mkdir()
        save_file(
            {name: checkpoint.read(name) for name in by_room[Room.UNUSED]},
            folder / UNUSED_FOLDER / UNUSED_FILE,
            metadata={name: rooms[name].reason for name in by_room[Room.UNUSED]},
        )
        bar.update(sum(by_room[Room.UNUSED].values()) + sum(by_room[Room.CONSTANT].values()))


def check_constants(checkpoint: Checkpoint, layout: Layout) -> None:
    """Raises TpoError when a tensor that we compute has another value: it could not be made again."""
    for name, value in constants(layout).items():
        found = checkpoint.read(name)
        if not torch.equal(found, value.to(found.dtype)):
            raise TpoError(f"{checkpoint.folder} holds {name} with other values than the published: download it again")


def publish(source: str, target: str) -> None:
    """Write a model of ours under the published names and in the published dtype, which is that of the unused tensors.

    Raises TpoError when the source is not, in full, a model of ours with the published parts, lacks the unused tensors,
    or when something is at `target` already.
    """
    sizes = Sizes.of_folder(source)
    ours = Checkpoint.open(source)
    layout = Layout(sizes)
    rooms = places(layout)
    ours.require({name: Wanted(tuple(value.shape)) for name, value in layout.model.items()}, "save it again")
    unused = _unused(ours.folder, rooms)
    (dtype,) = float_dtypes(unused.headers)
    sam2 = FrozenSam2.load(sam2_folder(ours.folder, sizes.model)).model.state_dict()
    fixed = {**constants(layout), **to_facebook(sam2, PUBLISHED_PREFIX)}

    def make(name: str) -> dict[str, Tensor]:
        room = rooms[name].room
        if room == Room.UNUSED:
            return {name: unused.read(name)}
        value = to_published(name, ours.read) if room == Room.MODEL else fixed[name]
        return {name: value.to(TORCH_DTYPES[dtype]) if value.is_floating_point() else value}

    bytes_of = _sizes_bytes(rooms, unused, dtype)
    with written_aside(target) as folder:
        with progress("publish", sum(bytes_of.values())) as bar:
            write_shards(folder, bytes_of, make, bar.update)
        tokenizer = ours.folder / MODEL_FILE
        if tokenizer.exists():
            shutil.copyfile(tokenizer, folder / MODEL_FILE)


def _sizes_bytes(rooms: Mapping[str, Place], unused: Checkpoint, dtype: str) -> dict[str, int]:
    shapes = {name: place.shape for name, place in rooms.items()} | {
        name: header.shape for name, header in unused.headers.items()
    }
    return {
        name: Header(tuple(size or 0 for size in shape), "I64" if name == POSITION_IDS else dtype).size_bytes
        for name, shape in shapes.items()
    }


def _unused(folder: Path, rooms: Mapping[str, Place]) -> Checkpoint:
    place = folder / UNUSED_FOLDER
    if not place.is_dir():
        raise TpoError(
            f"{folder} lacks {UNUSED_FOLDER}/{UNUSED_FILE}, the published tensors that nothing reads: copy the folder "
            f"{UNUSED_FOLDER} from the model that was converted"
        )
    unused = Checkpoint.open(place)
    of_room = {name: each for name, each in rooms.items() if each.room == Room.UNUSED}
    unused.require(wanted(of_room, unused.headers), f"copy {UNUSED_FOLDER} again from the model that was converted")
    return unused
