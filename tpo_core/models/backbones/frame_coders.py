"""How families of vision towers take a clip, behind one interface.

Sizes and unused parameters come from a run of the vision side on the meta device, which computes nothing: whatever a
family's configuration calls them, they are right.

Shape letters as in `backbones/base.py`; G groups of frames of a clip, K visual tokens of a group.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from tpo_core.errors import TpoError
from tpo_core.models.backbones.base import VisualFeatures, first_line
from tpo_core.models.families import Family


class FrameCoder(ABC):
    """Turns clips into visual tokens and patches.

    group_size: frames of a group. tokens_per_group: K. grid_hw, vision_size: of the patches of a frame.
    unused: parameters of `.vlm` that have no part in the features of a clip.
    """

    group_size: int = 1
    tokens_per_group: int
    grid_hw: tuple[int, int]
    vision_size: int
    unused: frozenset[str] = frozenset()

    def __init__(self, vlm: Any) -> None:
        self.model = vlm.model

    @abstractmethod
    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        """As `Backbone.encode`; the tokens are those of G groups of K each."""

    def groups(self, frame_mask_BT: Tensor) -> Tensor:
        """bool (B, G): the groups that hold a frame of the clip."""
        return frame_mask_BT[:, :: self.group_size]

    def real(self, frame_mask_BT: Tensor) -> Tensor:
        """bool (B, G * K): the tokens of such groups."""
        return self.groups(frame_mask_BT).repeat_interleave(self.tokens_per_group, 1)

    @abstractmethod
    def packed(self, features: VisualFeatures, real_BL: Tensor) -> BaseModelOutputWithPooling:
        """The chosen tokens, in order, in the form in which the model takes features computed before."""


class SingleFrames(FrameCoder):
    """Frames are independent in the tower, as images or as a video."""

    def __init__(self, vlm: Any, family: Family, image_size: int) -> None:
        super().__init__(vlm)
        self.video = family.frames == "video"
        self.layer = vlm.config.vision_feature_layer if hasattr(vlm.config, "vision_feature_layer") else None
        patch_size = vlm.config.vision_config.patch_size
        side = image_size // (patch_size[0] if isinstance(patch_size, list | tuple) else patch_size)
        self.grid_hw = (side, side)
        self._measure(type(vlm), vlm.config, image_size)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _measure(self, vlm_class: Any, config: Any, image_size: int) -> None:
        with torch.device("meta"), no_init_weights():
            ghost = vlm_class(config)
            try:
                output = self._run(ghost.model, torch.zeros(1, 1, 3, image_size, image_size))
            except Exception as error:  # each family fails in a way of its own where it wants more than pixels
                raise TpoError(f"its vision tower does not take a frame alone ({first_line(error)})") from error
        tokens = output.pooler_output
        self.listed = isinstance(tokens, list | tuple)
        tokens_BLC = torch.stack(list(tokens)) if self.listed else tokens
        patches_BNC = self._patches(output)
        self.tokens_per_group, self.vision_size = tokens_BLC.shape[1], patches_BNC.shape[-1]
        found = torch.autograd.grad(tokens_BLC.sum(), list(ghost.parameters()), allow_unused=True)
        names = [name for name, _ in ghost.named_parameters()]
        self.unused = frozenset(name for name, grad in zip(names, found, strict=True) if grad is None)

    def _run(self, model: Any, pixels_UTCHW: Tensor) -> Any:
        if self.video:
            return model.get_video_features(pixels_UTCHW, return_dict=True)
        return model.get_image_features(pixel_values=pixels_UTCHW.flatten(0, 1), return_dict=True)

    def _patches(self, output: Any) -> Tensor:
        """The layer that feeds the connector (frames, N, C), without what stands before its grid (a class token)."""
        layer = self.layer[-1] if isinstance(self.layer, list | tuple) else self.layer
        chosen = output.last_hidden_state if layer is None or not output.hidden_states else output.hidden_states[layer]
        count = math.prod(self.grid_hw)
        if chosen.ndim != 3 or chosen.shape[1] < count:
            raise TpoError(f"its vision tower gives features {tuple(chosen.shape)} where {count} patches were expected")
        return chosen[:, chosen.shape[1] - count :]

    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        output = self._run(self.model, pixels_UTCHW)
        tokens = torch.stack(list(output.pooler_output)) if self.listed else output.pooler_output
        clips, frames = pixels_UTCHW.shape[:2]
        return VisualFeatures(
            tokens.reshape(clips, frames * self.tokens_per_group, -1),
            self._patches(output).unflatten(0, (clips, frames)),
        )

    def packed(self, features: VisualFeatures, real_BL: Tensor) -> BaseModelOutputWithPooling:
        tokens_1MC = features.tokens_BLC[real_BL][None]
        if self.video:  # of a list of clips, each as (frames, K, C)
            return precomputed([tokens_1MC])
        return precomputed(list(tokens_1MC) if self.listed else tokens_1MC)


class PatchGroups(FrameCoder):
    """Qwen-VL: `temporal_patch_size` frames share their patches, and squares of `spatial_merge_size` patches a side
    become one visual token. Groups do not look at one another in the tower.

    An odd clip is filled up with its last frame, as Qwen's own processor does.
    """

    def __init__(self, vlm: Any, family: Family, image_size: int) -> None:
        super().__init__(vlm)
        vision = vlm.config.vision_config
        self.patch, self.merge, self.group_size = (
            vision.patch_size,
            vision.spatial_merge_size,
            vision.temporal_patch_size,
        )
        if image_size % (self.patch * self.merge):
            raise TpoError(
                f"frames of {image_size} pixels a side are no whole number of squares of {self.patch * self.merge}: "
                "set model.frame_size to a multiple of it"
            )
        self.window = vision.window_size if hasattr(vision, "window_size") else None
        side = image_size // self.patch
        self.grid_hw = (side, side)
        self.tokens_per_group = (side // self.merge) ** 2
        self.vision_size = vlm.model.visual.patch_embed.proj.out_channels

    def grid(self, frame_mask_BT: Tensor) -> Tensor:
        """Groups, rows and columns of patches (B', 3) of the rows that show a clip."""
        groups_B = self.groups(frame_mask_BT).sum(1)
        groups_B = groups_B[groups_B > 0]
        return torch.stack([groups_B, *(torch.full_like(groups_B, side) for side in self.grid_hw)], 1)

    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        clips, frames = frame_mask_UT.shape
        groups = math.ceil(frames / self.group_size)
        last_U1 = (frame_mask_UT.sum(1, keepdim=True) - 1).clamp(min=0)
        wanted_UT = torch.arange(groups * self.group_size, device=last_U1.device).expand(clips, -1).minimum(last_U1)
        filled = pixels_UTCHW[torch.arange(clips, device=last_U1.device)[:, None], wanted_UT]
        grid = torch.tensor([[groups, *self.grid_hw]] * clips, device=last_U1.device)
        output = self.model.get_video_features(self.patchify(filled), grid, return_dict=True)
        tokens, deeper = torch.stack(list(output.pooler_output)), []
        if "deepstack_features" in output:
            deeper = [torch.stack(list(layer)) for layer in output.deepstack_features]
        return VisualFeatures(tokens, self._patches(output.last_hidden_state, grid)[:, :frames], deeper)

    def patchify(self, pixels_UTCHW: Tensor) -> Tensor:
        """Flat patches (U * G * N, 3 * group_size * patch * patch) of whole groups, in the order of Qwen's processor:
        clip, group, square of merged patches, patch in the square; in a patch channel, frame, row, column."""
        high, wide = (side // self.merge for side in self.grid_hw)
        sizes = (high, self.merge, self.patch, wide, self.merge, self.patch)
        split = pixels_UTCHW.reshape(len(pixels_UTCHW), -1, self.group_size, 3, *sizes)
        return split.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).flatten(6).flatten(0, 5)

    def _patches(self, states_PC: Tensor, grid: Tensor) -> Tensor:
        """Features of the patches, row-major by frame (U, G * group_size, N, C): those of a group are its frames'."""
        squares = states_PC.unflatten(0, (-1, self.merge * self.merge))
        if self.window is not None:  # the tower works in windows, and gives its states in their order
            order, _ = get_vision_window_index(grid, self.merge, self.window, self.patch)
            squares = squares[order.argsort().to(squares.device)]
        high, wide = (side // self.merge for side in self.grid_hw)
        split = squares.reshape(len(grid), -1, high, wide, self.merge, self.merge, squares.shape[-1])
        return split.transpose(3, 4).flatten(2, 5).repeat_interleave(self.group_size, 1)

    def packed(self, features: VisualFeatures, real_BL: Tensor) -> BaseModelOutputWithPooling:
        output = precomputed((features.tokens_BLC[real_BL],))
        if features.deeper:
            output["deepstack_features"] = [(layer_BLC[real_BL],) for layer_BLC in features.deeper]
        return output


def precomputed(tokens: Any) -> BaseModelOutputWithPooling:
    """Visual tokens as a model's own encoder would return them: a tensor in some families, a sequence in others."""
    return BaseModelOutputWithPooling(pooler_output=tokens)


def frame_coder(vlm: Any, family: Family, image_size: int) -> FrameCoder:
    """The coder of a family."""
    return (PatchGroups if family.frames == "patches" else SingleFrames)(vlm, family, image_size)
