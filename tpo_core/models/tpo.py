"""The TPO model: a vision-language backbone with adapters, task tokens and task heads.

Saved layout (one directory): the Hugging Face files of the backbone (config.json, tokenizer, safetensors under the
backbone's own names, adapters unmerged), preprocessor_config.json, `tpo.json` (model section of the recipe, frames of a
video, heads) and `parameters.json` (name, shape, dtype, group and trainability of every tensor).
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from tpo_core.config.base import identity
from tpo_core.config.schema import FramesConfig, ModelConfig
from tpo_core.data.example import Example
from tpo_core.errors import TpoError
from tpo_core.heads.base import HeadContext, Prediction, TaskHead
from tpo_core.heads.registry import HEADS, build_head
from tpo_core.models.backbones.base import Backbone, VisualFeatures
from tpo_core.models.backbones.registry import load_backbone
from tpo_core.models.batch import IGNORED, Batch
from tpo_core.models.flops import batch_flops
from tpo_core.models.generation import Grammar, HeadCall, Step, greedy
from tpo_core.models.head_context import head_context, text_encoder
from tpo_core.models.processing import Processor
from tpo_core.models.source import local_path
from tpo_core.models.task_tokens import TRACK_BOX, TaskTokens, add_task_tokens, require_task_tokens
from tpo_core.models.weights import read_folder, require_fit
from tpo_core.storage.uri import join

VLM_PREFIX = "backbone.vlm."
SETTINGS = "tpo.json"
MANIFEST = "parameters.json"
FORMAT = 2


@dataclass
class Answer:
    """What the model said. activated: heads that it called, in order of the first call; found: head and prediction of
    each call to a head that the model has, in order (a model without heads can still write the indicators)."""

    text: str
    token_ids: list[int]
    found: list[tuple[str, Prediction]]
    activated: list[str]

    def first(self, head: str) -> Prediction | None:
        """What the first call of `head` gave."""
        return next((prediction for name, prediction in self.found if name == head), None)


class TpoModel(nn.Module):
    """Build it with `from_base` or `from_pretrained`. `.processor` makes its batches; `.frames` tells which frames of a
    video it was trained on."""

    def __init__(self, config: ModelConfig, backbone: Backbone, processor: Processor, heads: Iterable[str]) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.processor = processor
        hidden_size, vision_size = backbone.hidden_size, backbone.vision_size
        self.heads = nn.ModuleDict({name: build_head(name, config, hidden_size, vision_size) for name in heads})
        embedding: Any = backbone.vlm.get_input_embeddings()
        require_task_tokens(processor.tokenizer, embedding.num_embeddings)
        self.task_tokens = TaskTokens(
            {name: processor.slot_ids[name] for name in self.heads},
            processor.token_id(TRACK_BOX),
            hidden_size,
        )
        embedding.register_forward_hook(self.task_tokens.embed)
        self.new_parameters: list[str] = []
        self.compares_with_base = False
        self.frames = FramesConfig()
        self._text_encoder = text_encoder(config, list(self.heads))
        processor.writes_coordinates = config.coordinates == "text"
        processor.keeps_frames = {
            training: any(self.head(name).looks_at_frames(training=training) for name in self.heads)
            for training in (True, False)
        }

    @classmethod
    def from_base(cls, base_uri: str, config: ModelConfig, heads: Iterable[str]) -> "TpoModel":
        """A Hugging Face base model with task tokens, fresh adapters and heads. Raises TpoError for a bad base."""
        path = local_path(base_uri)
        backbone = load_backbone(path, config, weights=True)
        tokenizer = backbone.load_tokenizer(path)
        add_task_tokens(tokenizer, backbone.vlm)
        backbone.add_lora(config.lora)
        model = cls(config, backbone, backbone.load_processor(path, tokenizer), heads)
        model.task_tokens.start(model.heads, backbone.embedding_VC)
        return model

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, heads: Iterable[str] | None = None, run: ModelConfig | None = None
    ) -> "TpoModel":
        """A model written by `save_pretrained`; `heads` (default: the saved ones) may name more than were saved.

        run: says how the model is to be carried out (its execution fields, default: theirs); all else is as saved.

        Loading is strict: the only parameters that may be new are those of newly named heads, listed afterwards in
        `.new_parameters`. Raises TpoError when anything else is missing or unknown.
        """
        path = local_path(str(directory))
        settings_path = Path(path) / SETTINGS
        if not settings_path.exists():
            raise TpoError(f"{directory} holds no saved TPO model (no {SETTINGS}): give the `model` folder of a run")
        saved, config, frames = read_settings(settings_path)
        config = beside(config, str(directory), Path(path))
        config = config if run is None else config.carried_out_as(run)
        names = saved if heads is None else list(heads)
        lost = sorted(set(saved) - set(names))
        if lost:
            raise TpoError(f"{directory} has a trained {lost[0]} head that would be lost: add it to the stage's heads")
        backbone = load_backbone(path, config, weights=False)
        backbone.add_lora(config.lora)
        model = cls(config, backbone, backbone.load_processor(path, backbone.load_tokenizer(path)), names)
        model.frames = frames
        new = sorted(set(names) - set(saved))
        model._load_weights(Path(path), may_be_new=new, first_heads=not saved)
        model.task_tokens.start(new, backbone.embedding_VC)
        return model

    def ask_in_order_of(self, run: ModelConfig) -> None:
        """From here on heads are called in the order of `run`, where the weights are no longer those of a release."""
        order = {"compat_skip_begin_token": run.compat_skip_begin_token}
        self.config = self.config.model_copy(update=order)

    def _load_weights(self, path: Path, *, may_be_new: list[str], first_heads: bool) -> None:
        state = read_folder(path)
        prefixes = [f"{part}.{name}" for name in may_be_new for part in ("heads", "task_tokens.vectors")]
        if first_heads and may_be_new:
            prefixes.append("task_tokens.loc_encoder.")
        own = {saved_name(name): (name, value) for name, value in self.state_dict().items()}
        shapes = {name: value for name, (_, value) in own.items()}
        require_fit(shapes, state, may_lack=tuple(prefixes), of=str(path))
        self.load_state_dict({own[name][0]: value for name, value in state.items()}, strict=False)
        self.new_parameters = sorted(own.keys() - state.keys())

    def save_pretrained(self, directory: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the layout described at the top of this module into a local directory.

        weights: a whole state dict to write in place of the model's own, which may lie in pieces on several ranks.
        """
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() if weights is None else weights
        state = {saved_name(name): value.detach().contiguous() for name, value in weights.items()}
        save_torch_state_dict(state, path)
        self.backbone.save_config(path)
        self.processor.save(path)
        settings = {
            "format": FORMAT,
            "heads": list(self.heads),
            "model": identity(self.config),
            "frames": self.frames.model_dump(mode="json"),
        }
        (path / SETTINGS).write_text(json.dumps(settings, indent=1))
        (path / MANIFEST).write_text(json.dumps(self._manifest(weights), indent=1))

    def _manifest(self, weights: Mapping[str, Tensor]) -> list[dict[str, object]]:
        group_of = {name: group for group, members in self.groups().items() for name, _ in members}
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        return [
            {
                "name": saved_name(name),
                "shape": list(value.shape),
                "dtype": str(value.dtype).removeprefix("torch."),
                "group": group_of.get(name),
                "trained": trained.get(name, False),
            }
            for name, value in weights.items()
        ]

    def head(self, name: str) -> TaskHead:
        head = self.heads[name]
        assert isinstance(head, TaskHead)
        return head

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameters by group. In no group: frozen weights of the language model and parts that never run."""
        found: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            if name.startswith(VLM_PREFIX):
                group = self.backbone.group_of(name.removeprefix(VLM_PREFIX))
            else:
                group = "task_vectors" if name.startswith("task_tokens.") else f"{name.split('.')[1]}_head"
            if group is not None:
                found.setdefault(group, []).append((name, parameter))
        return found

    def sharding_units(self) -> list[nn.Module]:
        """Modules, inner before outer, whose parameters are gathered together when they run; the rest is one unit."""
        return self.backbone.sharding_units()

    def whole_units(self) -> list[nn.Module]:
        """The heads, whose networks use parameters outside of the modules that own them, and run parts of themselves
        only where samples allow it (pairs of different videos); and the task vectors, which hooks put into place."""
        return [self.heads, self.task_tokens]

    def flops(self) -> Callable[[Batch], float]:
        """What a micro-batch costs, forward and backward, with what trains now: see the module of `batch_flops`."""
        return batch_flops(self)

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many targets each loss of a batch sums over, on this rank."""
        counts = dict.fromkeys(("lm", "kl"), batch.n_answer_tokens)
        if batch.kind in self.heads and batch.targets is not None:
            terms = self.head(batch.kind).counts(batch, batch.targets)
            counts |= {f"{batch.kind}/{term}": count for term, count in terms.items()}
        return counts

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Losses {"lm": ..., "<kind>/<term>": ...}, each summed over its targets (`counts` says how many), and plain
        numbers for the log.

        "lm" is the cross-entropy of labelled tokens, indicators included (the paper's assignment loss); the terms of a
        head are there when the batch is of its kind and the model has it; "kl" is there for plain conversation when
        `.compares_with_base` is set: how far its answers are from those without adapters, in nats a token (learning
        without forgetting, arXiv 1606.09282).
        """
        features = self._features(batch)
        # First what needs no gradient: ZeRO-3 tells the end of a layer's backward by the layer's latest forward.
        compares = self.compares_with_base and batch.kind not in HEADS
        base_MV = self._base_log_probs(batch, features) if compares else None
        hidden_BLC = self._hidden(batch, features)
        next_M = batch.labels_BL[:, 1:][batch.labels_BL[:, 1:] != IGNORED]
        logits_MV = self._answer_logits(batch, hidden_BLC)
        losses, report = {"lm": F.cross_entropy(logits_MV, next_M, reduction="sum")}, {}
        if base_MV is not None:
            losses["kl"] = F.kl_div(logits_MV.log_softmax(-1), base_MV, log_target=True, reduction="sum")
        if batch.kind in self.heads and batch.targets is not None:
            slots_BL = batch.input_ids_BL == self.processor.slot_ids[batch.kind]
            assert slots_BL.any(1).all(), f"a {batch.kind} sample has no slot: {batch.sample_ids}"
            hidden_NC = hidden_BLC[torch.arange(len(slots_BL), device=slots_BL.device), slots_BL.int().argmax(1)]
            with torch.autocast(hidden_NC.device.type, enabled=False):
                result = self.head(batch.kind)(hidden_NC.float(), self._context(features, batch), batch.targets)
            losses |= {f"{batch.kind}/{name}": value for name, value in result.sums.items()}
            terms = {name: float(value.detach()) for name, value in result.losses.items()}
            report = {f"{batch.kind}/{name}": value for name, value in {**terms, **result.report}.items()}
        return losses, report

    def _features(self, batch: Batch) -> VisualFeatures:
        """Visual features by row of the batch; clips that several rows show are encoded once."""
        frame_mask_UT = batch.frame_mask_BT.new_zeros(batch.pixel_values_UTCHW.shape[:2])
        frame_mask_UT[batch.clip_B] = batch.frame_mask_BT
        return self.backbone.encode(batch.pixel_values_UTCHW, frame_mask_UT).rows(batch.clip_B)

    def _hidden(self, batch: Batch, features: VisualFeatures) -> Tensor:
        """Last hidden states (B, L, C) of a training batch."""
        with self.task_tokens.given_boxes(batch.slot_boxes_B4):
            inputs = self.backbone.visual_inputs(features, batch.frame_mask_BT, batch.times_s_BT)
            output = self.backbone.hidden_states(batch.input_ids_BL, batch.attention_mask_BL, use_cache=False, **inputs)
        return output.last_hidden_state

    def _answer_logits(self, batch: Batch, hidden_BLC: Tensor) -> Tensor:
        """fp32 logits (M, V) at the M places whose next token carries a label."""
        return self.backbone.lm_head(hidden_BLC[:, :-1][batch.labels_BL[:, 1:] != IGNORED]).float()

    @torch.no_grad()
    def _base_log_probs(self, batch: Batch, features: VisualFeatures) -> Tensor:
        """What the language model without adapters gives at the same places, as log probabilities (M, V)."""
        with self.backbone.without_lora():
            return self._answer_logits(batch, self._hidden(batch, features)).log_softmax(-1)

    def _context(self, features: VisualFeatures, batch: Batch) -> HeadContext:
        return head_context(batch, features, self.backbone.grid_hw, self.frames, self._text_encoder)

    @torch.no_grad()
    def chat(self, examples: list[Example], max_new_tokens: int) -> list[Answer]:
        """Greedy answers to the conversations up to their last answer, with a prediction for every head called."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        batch = self.processor.collate([self.processor.encode(e, train=False) for e in examples], pad_left=True)
        answers = self._answer(batch.to(device), max_new_tokens)
        self.train(was_training)
        return answers

    def _answer(self, batch: Batch, max_new_tokens: int) -> list[Answer]:
        features = self._features(batch)
        mask_BL = batch.attention_mask_BL
        grammar = Grammar(
            heads={self.processor.token_id(h.begin): (n, self.processor.slot_ids[n]) for n, h in HEADS.items()},
            end_ids=frozenset(self.processor.end_token_ids() | self.backbone.end_token_ids()),
            pad_id=self.processor.pad_id,
        )
        with self.task_tokens.given_boxes(batch.slot_boxes_B4):
            inputs = self.backbone.visual_inputs(features, batch.frame_mask_BT, batch.times_s_BT)
            prompt = self.backbone.hidden_states(batch.input_ids_BL, mask_BL, use_cache=True, **inputs)
        decoded = greedy(self._step, self.backbone.lm_head, prompt, mask_BL, grammar, max_new_tokens, self._ahead)
        found = self._predict(decoded.calls, self._context(features, batch))
        answers = []
        for row, ids in enumerate(decoded.token_ids):
            activated = list(dict.fromkeys(call.head for call in decoded.calls if call.row == row))
            text = self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            answers.append(Answer(text, ids, found[row], activated))
        return answers

    def _step(self, *args: Any, **named: Any) -> Any:
        """One decoding step. In the published order slots that the model writes are no calls, and keep their rows."""
        if self._ahead is None:
            return self.backbone.hidden_states(*args, **named)
        with self.task_tokens.silent():
            return self.backbone.hidden_states(*args, **named)

    @property
    def _ahead(self) -> Step | None:
        return self.backbone.hidden_states if self.config.compat_skip_begin_token else None

    def _predict(self, calls: list[HeadCall], context: HeadContext) -> dict[int, list[tuple[str, Prediction]]]:
        """By row the (head, prediction) of each call, in order; a head answers all its calls together."""
        made: dict[int, tuple[str, Prediction]] = {}
        for name in self.heads:
            places = [place for place, call in enumerate(calls) if call.head == name]
            if not places:
                continue
            rows = torch.tensor([calls[place].row for place in places], device=context.frame_mask_BT.device)
            hidden_NC = torch.stack([calls[place].hidden_C for place in places]).float()
            with torch.autocast(rows.device.type, enabled=False):
                made |= {
                    place: (name, one)
                    for place, one in zip(places, self.head(name).predict(hidden_NC, context.rows(rows)), strict=True)
                }
        found: dict[int, list[tuple[str, Prediction]]] = defaultdict(list)
        for place in sorted(made):
            found[calls[place].row].append(made[place])
        return found


def read_settings(file: Path) -> tuple[list[str], ModelConfig, FramesConfig]:
    """Heads, model section and frames of a saved model. Raises TpoError when the file is damaged."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        if settings["format"] != FORMAT:
            raise TpoError(f"{file} has format {settings['format']}, this code reads {FORMAT}: save it again")
        return list(settings["heads"]), ModelConfig(**settings["model"]), FramesConfig(**settings["frames"])
    except (OSError, ValueError, KeyError, TypeError) as error:  # those of JSON and of pydantic are ValueErrors
        reason = " ".join(str(error).split())
        raise TpoError(f"{file} is damaged, or of another version ({reason}): save the model again") from error


def beside(config: ModelConfig, directory: str, here: Path) -> ModelConfig:
    """The configuration with the place of a SAM2 that lies below the folder of the model, as a converted one has it.

    directory: where the model lies; here: its local copy, which other machines do not have.
    """
    mask = config.mask
    if "://" in mask.sam2.source or not (here / mask.sam2.source).is_dir():
        return config
    place = join(directory if "://" in directory else here.absolute(), mask.sam2.source)
    sam2 = mask.sam2.model_copy(update={"source": place})
    return config.model_copy(update={"mask": mask.model_copy(update={"sam2": sam2})})


def saved_name(name: str) -> str:
    """Name of a tensor in the saved files: backbone tensors carry their Hugging Face names."""
    return name.removeprefix(VLM_PREFIX)
