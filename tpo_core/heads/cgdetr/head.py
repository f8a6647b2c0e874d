"""Temporal head as published with VideoChat-TPO: CG-DETR, told what to look for by the hidden vector.

The hidden vector enters as one more word behind those of the question. Spans are learned as fractions of the time
that the clips cover and read as fractions of the duration, as published; the two differ where features were cut to
whole clips.
"""

from typing import Self

import torch
from torch import Tensor, nn

from tpo_core.config.model import CgDetrConfig
from tpo_core.config.schema import ModelConfig
from tpo_core.heads.base import HeadContext, HeadOutput, SpanPrediction, TaskHead, TemporalTargets, Timeline
from tpo_core.heads.cgdetr.criterion import SPAN_WEIGHTS, WEIGHTS, criterion, span_term
from tpo_core.heads.cgdetr.features import inputs_of
from tpo_core.heads.cgdetr.network import CgDetr, CgDetrInputs
from tpo_core.heads.cgdetr.postprocess import round_to_clips, windows
from tpo_core.heads.cgdetr.targets import MAX_WINDOWS, CgDetrTargets, build_targets

LOSS_SCALE = 0.05  # of the whole criterion in the published training
PLACE_CHANNELS = 2
MIN_DURATION_S = 1e-6


class CgDetrHead(TaskHead):
    """hidden_size: width of the language model; vision_size: of the patch features, for recipes without clip features.

    The network is `network`, with the names of the published `cg_model`; `prompt` brings the hidden vector to the
    width of a word, and has no parameters where they are equal, as in the published model.
    """

    name = "temporal"
    begin = "<time_begin>"
    slot = "<temp>"

    def __init__(self, config: CgDetrConfig, hidden_size: int, vision_size: int) -> None:
        super().__init__()
        self.config = config
        clip_width = vision_size if config.clip_width is None else config.clip_width
        text_width = hidden_size if config.text_width is None else config.text_width
        self.prompt = nn.Identity() if text_width == hidden_size else nn.Linear(hidden_size, text_width)
        self.network = CgDetr(config, clip_width + PLACE_CHANNELS, text_width)

    @classmethod
    def from_config(cls, config: ModelConfig, hidden_size: int, vision_size: int) -> Self:
        return cls(config.temporal.cg_detr, hidden_size, vision_size)

    def inputs(self, hidden_NC: Tensor, context: HeadContext) -> CgDetrInputs:
        return inputs_of(context, self.prompt(hidden_NC.float()), self.config)

    def clip_len_s(self, context: HeadContext) -> Tensor | None:
        """Seconds (B,) of a clip; None where clips are frames, or features of unknown length: they share the duration
        evenly."""
        return None if self.config.clip_width is None else context.clip_len_s_B

    def lengths_s(self, context: HeadContext, mask_BV: Tensor) -> Tensor:
        """Seconds (B,) from the start of a clip to that of the next."""
        clip_len_s = self.clip_len_s(context)
        duration_B = context.duration_s_B.float().clamp(min=MIN_DURATION_S)
        return duration_B / mask_BV.sum(1) if clip_len_s is None else clip_len_s

    def targets(self, inputs: CgDetrInputs, context: HeadContext, spans: list[Tensor]) -> CgDetrTargets:
        """Targets of spans given as fractions of the duration."""
        mask_BV = inputs.video_mask_BV
        duration_B = context.duration_s_B.float().clamp(min=MIN_DURATION_S)
        length_B = self.lengths_s(context, mask_BV)
        windows_s = [spans_K2 * duration for spans_K2, duration in zip(spans, duration_B.tolist(), strict=True)]
        return build_targets(windows_s, length_B.tolist(), mask_BV, context.generators()).to(mask_BV.device)

    def counts(self, timeline: Timeline, targets: TemporalTargets) -> dict[str, int]:
        """Matched moments for "span" and "giou" of each layer. All other terms count samples: they compare the samples
        of a micro-batch with each other, so that the published mean over them is what a sample stands for."""
        samples, most = len(targets.spans), min(MAX_WINDOWS, self.config.queries)
        matched = sum(min(len(spans_K2), most) for spans_K2 in targets.spans)
        counts = dict.fromkeys(WEIGHTS, samples)
        last = self.config.decoder_layers - 1
        for layer in range(last + 1):
            for name in SPAN_WEIGHTS:
                counts[span_term(name, layer, last=last)] = samples if name == "label" else matched
        return counts

    def forward(self, hidden_NC: Tensor, context: HeadContext, targets: TemporalTargets) -> HeadOutput:
        """The terms of the criterion with their weights, times 0.05."""
        video_ids_B = torch.arange(len(hidden_NC)) if context.clip_B is None else context.clip_B
        with torch.autocast(hidden_NC.device.type, enabled=False):
            inputs = self.inputs(hidden_NC, context)
            built = self.targets(inputs, context, targets.spans)
            output = self.network(inputs, built.relevant_BV, video_ids_B.to(hidden_NC.device))
            found = criterion(output, built)
        counts = self.counts(context, targets)
        sums = {name: LOSS_SCALE * value * counts[name] for name, value in found.weighted().items()}
        return HeadOutput(sums, counts, {"class_error": found.class_error["class_error"]})

    def predict(self, hidden_NC: Tensor, context: HeadContext) -> list[SpanPrediction]:
        """As many spans as the network has queries, overlaps included; where clip features have a length, spans begin
        and end at its multiples. With the saliency of every clip."""
        with torch.autocast(hidden_NC.device.type, enabled=False):
            output = self.network(self.inputs(hidden_NC, context))
        lengths_s = self.lengths_s(context, output.video_mask_BV).tolist()
        saliency_BV, counts = output.saliency_BV.detach().cpu(), output.video_mask_BV.sum(1).tolist()
        logits_BQ2, spans_BQ2 = output.logits_RBQ2[-1].detach().cpu(), output.spans_RBQ2[-1].detach().cpu()
        predictions, clip_len_s = [], self.clip_len_s(context)
        for row, duration_s in enumerate(context.duration_s_B.tolist()):
            found = windows(logits_BQ2[row], spans_BQ2[row], duration_s)
            if clip_len_s is not None:
                found = round_to_clips(found, float(clip_len_s[row]), duration_s)
            numbers_Q3 = torch.tensor(found)
            edges = torch.arange(counts[row] + 1) * lengths_s[row]
            clips_V3 = torch.stack([edges[:-1], edges[1:], saliency_BV[row, : counts[row]]], 1)
            predictions.append(SpanPrediction(numbers_Q3[:, :2], numbers_Q3[:, 2], clips_V3))
        return predictions
