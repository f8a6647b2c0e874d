"""Objects of one clip, followed by SAM2 from prompts that are embeddings and not boxes.

SAM2 takes no embedding as an argument. Its prompt encoder is asked for a box, whose answer is then replaced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tpo_core.heads.sam2.frozen import PROMPT_ROWS, FrozenSam2

if TYPE_CHECKING:
    from transformers import Sam2VideoInferenceSession

CORNERS = (2, 3)  # SAM2's labels of the two corners of a box


@contextmanager
def prompted(encoder: nn.Module, prompts_N3C: Tensor) -> Iterator[None]:
    """Within it the n-th box or pair of corners that the prompt encoder is asked for gives the n-th of the prompts.

    Answers of other lengths (an empty prompt has two rows) stay, and so does the dense part of each answer.
    """
    waiting = iter(prompts_N3C)

    def replace(_module: nn.Module, _args: object, answer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        sparse_11KC, dense = answer
        return (next(waiting)[None, None] if sparse_11KC.shape[2] == PROMPT_ROWS else sparse_11KC), dense

    handle = encoder.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class Frames:
    """The frames of a clip as a session of SAM2 reads them: prepared one at a time, when it comes to them."""

    sam: FrozenSam2
    frames_T3HW: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.frames_T3HW)

    def __getitem__(self, place: int) -> Tensor:
        return self.sam.pixels(self.frames_T3HW[place, None].to(self.device))[0]


def new_session(frames: Frames, objects: int, start: int) -> "Sam2VideoInferenceSession":
    """A session with objects of which the corners on frame `start` are asked for: they stand in for prompts to come."""
    from transformers import Sam2VideoInferenceSession  # as in FrozenSam2.load

    device: Any = frames.device
    session = Sam2VideoInferenceSession(dtype=torch.float32, inference_device=device, inference_state_device=device)
    session.processed_frames = frames  # type: ignore[assignment]
    corners, labels = torch.zeros(1, 1, len(CORNERS), 2), torch.tensor([[CORNERS]], dtype=torch.int32)
    for number in range(objects):
        index = session.obj_id_to_idx(number)
        session.add_point_inputs(index, start, {"point_coords": corners, "point_labels": labels})
        session.obj_with_new_inputs.append(number)
    return session


def forget_full_masks(session: "Sam2VideoInferenceSession", frame: int) -> None:
    """SAM2 keeps masks at its image size (4 MiB a frame and object) that it never reads again."""
    for kept in session.output_dict_per_obj.values():
        for outputs in kept.values():
            outputs.get(frame, {}).pop("high_res_masks", None)


def track(sam: FrozenSam2, frames_T3HW: Tensor, prompts_N3C: Tensor, start: int) -> Iterator[tuple[int, Tensor]]:
    """Each frame of a clip once, as its place and the logits (N, h, w) of N objects prompted on frame `start`.

    From `start` onwards first, then backwards from it. The objects share each pass of the image encoder and nothing
    else. Where SAM2 holds that an object is out of sight its logits are -1024. Holes stay; the published code fills
    those of up to 8 pixels, if its CUDA extension was built.
    """
    assert 0 <= start < len(frames_T3HW), f"prompted on frame {start} of {len(frames_T3HW)}"
    model = sam.on(prompts_N3C.device)
    session = new_session(Frames(sam, frames_T3HW, prompts_N3C.device), len(prompts_N3C), start)
    with prompted(model.prompt_encoder, prompts_N3C):
        first = model(inference_session=session, frame_idx=start)
    forget_full_masks(session, start)
    yield start, first.pred_masks[:, 0]
    for place in [*range(start + 1, len(frames_T3HW)), *range(start - 1, -1, -1)]:
        output = model(inference_session=session, frame_idx=place, reverse=place < start)
        forget_full_masks(session, place)
        yield place, output.pred_masks[:, 0]
