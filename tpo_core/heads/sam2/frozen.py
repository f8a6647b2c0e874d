"""SAM2 as a tool of the mask head: it embeds boxes and makes masks of prompts, and is neither trained nor saved.

Computed in fp32 throughout: the positional encoding of a corner turns by up to 80 rad, where bf16 is off by 0.09 at
worst (the published training computed its targets so).
"""

from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from tpo_core.errors import TpoError
from tpo_core.storage.commit import fetch

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

PROMPT_ROWS = 3  # first corner, second corner, and the constant that fills a prompt up
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; SAM2 was trained with them


class FrozenSam2:
    """A Sam2VideoModel behind a plain object.

    A head keeps it as an attribute, and because it is no nn.Module, PyTorch does not make it a child of the head:
    parameters(), state_dict(), to() and train() of the head pass it by, and so do DDP, ZeRO, the optimizer and whatever
    saves the model. It follows the data to their device by itself.
    """

    def __init__(self, model: "Sam2VideoModel") -> None:
        self.model = model.float().eval().requires_grad_(False)
        config: Any = model.config
        self.image_size: int = config.image_size
        self.prompt_width: int = config.prompt_encoder_config.hidden_size

    @classmethod
    def load(cls, source: str) -> Self:
        """From a Hugging Face folder, URI or hub name. Raises TpoError when it is not, in full, a SAM2 video model."""
        from transformers import Sam2VideoModel  # 3 s of imports that other heads, and loader processes, do without

        try:
            folder = str(fetch(source)) if "://" in source else source
            loaded: Any = Sam2VideoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise TpoError(f"no SAM2 video model at {source!r} (model.mask.sam2.source): {reason}") from error
        model, info = loaded
        wrong = [f"it lacks {name}" for name in sorted(info["missing_keys"])]
        wrong += [f"it holds {name}, which its config does not have" for name in sorted(info["unexpected_keys"])]
        if wrong:
            raise TpoError(
                f"{source} is no SAM2 video model (model.mask.sam2.source): {wrong[0]} ({len(wrong)} tensors differ)"
            )
        return cls(model)

    def on(self, device: torch.device) -> "Sam2VideoModel":
        """The whole model, on a device."""
        return self.model.to(device)

    @torch.no_grad()
    def embed_boxes(self, boxes_N4: Tensor) -> Tensor:
        """(N, 3, C) prompts of boxes in xyxy fractions, taken as they are: outside the image, inverted or empty.

        Needs no image, and brings only the prompt encoder to the boxes' device.
        """
        encoder = self.model.prompt_encoder.to(boxes_N4.device)
        sparse_1N3C, _ = encoder(None, None, boxes_N4.float()[None] * self.image_size, None)
        return sparse_1N3C[0]

    def pixels(self, frames_FCHW: Tensor) -> Tensor:
        """uint8 RGB frames as SAM2 saw them in training: (F, 3, S, S), stretched to a square."""
        size = (self.image_size, self.image_size)
        scaled = F.interpolate(frames_FCHW.float() / 255, size, mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(value, device=scaled.device)[:, None, None] for value in (MEAN, STD))
        return (scaled - mean) / std

    def mask_logits(self, frames_N3HW: list[Tensor], prompts_N3C: Tensor) -> Tensor:
        """(N, h, w) mask logits, h = w = S / 4, of each prompt on its own frame, taken for the first of a video.

        The gradient reaches the prompts through the frozen decoder, also where SAM2 sees no object: its score, which
        blanks the mask in a video, is left out. frames_N3HW: uint8, sizes free; they pass the image encoder one by one.
        """
        model = self.on(prompts_N3C.device)
        with torch.no_grad():
            embedded = [model.get_image_embeddings(self.pixels(frame[None])) for frame in frames_N3HW]
            levels = [torch.cat(level) for level in zip(*embedded, strict=True)]
            _, dense = model.prompt_encoder(None, None, None, None)
            places = model.get_image_wide_positional_embeddings().repeat(len(prompts_N3C), 1, 1, 1)
        masks, _, _, _ = model.mask_decoder(
            image_embeddings=levels[-1],
            image_positional_embeddings=places,
            sparse_prompt_embeddings=prompts_N3C[:, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=levels[:-1],
        )
        return masks[:, 0, 0]
