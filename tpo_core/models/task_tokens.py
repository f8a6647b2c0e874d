"""The seven task tokens: what the language model writes to call a head, and what it is fed there.

Per head an indicator that the model must write (`<box_begin>`) and a slot behind it (`<boxes>`) whose input embedding
is the head's task vector; `<track_box>` stands in a question for a box that the user gives. The strings, their order
and their roles are those of the published VideoChat-TPO (paper notes 1.2).

The vectors enter by a forward hook on the input embedding, never by `inputs_embeds`, which silently changes the
positions of models with multimodal rotary embeddings.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tpo_core.errors import TpoError

TRACK_BOX = "<track_box>"


TASK_TOKENS = ("<box_begin>", "<time_begin>", "<temp>", "<boxes>", "<track_begin>", "<tracking>", TRACK_BOX)


def add_task_tokens(tokenizer: Any, model: Any) -> None:
    """Add the task tokens to tokenizer and model; their rows of embedding and lm_head become the mean of the old rows.

    A vocabulary that is padded beyond the tokenizer (Qwen) keeps its size. Does nothing when the tokens are there.
    """
    old = len(tokenizer)
    if tokenizer.add_tokens(list(TASK_TOKENS)) == 0:
        return
    untie(model)
    ids = tokenizer.convert_tokens_to_ids(list(TASK_TOKENS))
    needed = max(ids) + 1  # some vocabularies have holes: more ids than tokens
    if needed > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(needed, mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        with torch.no_grad():
            table.weight[ids] = table.weight[:old].mean(0)


def require_task_tokens(tokenizer: Any, rows: int) -> None:
    """Raises TpoError unless a tokenizer has all task tokens, each with a row of the embedding."""
    ids = tokenizer.convert_tokens_to_ids(list(TASK_TOKENS))
    if None in ids or len(set(ids)) < len(TASK_TOKENS) or max(ids) >= rows:
        raise TpoError(
            f"the tokenizer does not fit the model: it has ids {ids} for the task tokens, and the embedding {rows} "
            "rows; copy the tokenizer files of the model again"
        )


def untie(model: Any) -> None:
    """Give lm_head a weight of its own: an adapter on a tied lm_head would change the input embedding as well."""
    config = model.config
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())


class BoxEncoder(nn.Sequential):
    """`loc_encoder` of the published model: normalised xyxy (N, 4) -> input embedding (N, C)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(nn.Linear(4, hidden_size // 2), nn.ReLU(), nn.Linear(hidden_size // 2, hidden_size))


class TaskTokens(nn.Module):
    """One learnable vector (C,) for each active head, and the box encoder; parameter group `task_vectors`.

    slot_ids: head name -> id of its slot token. The published vectors start as plain randn, an order of magnitude or
    more beyond ordinary embedding rows; `start` scales new ones down to such rows, once the embedding has its weights.
    Without heads (stage task_assignment) there is nothing here and every task token keeps its mean row.
    """

    def __init__(self, slot_ids: dict[str, int], track_box_id: int, hidden_size: int) -> None:
        super().__init__()
        self.slot_ids = dict(slot_ids)
        self.track_box_id = track_box_id
        self.vectors = nn.ParameterDict({head: nn.Parameter(torch.randn(hidden_size)) for head in slot_ids})
        self.loc_encoder = BoxEncoder(hidden_size) if slot_ids else None
        self._boxes_B4: Tensor | None = None
        self._silent = False

    @torch.no_grad()
    def start(self, heads: Iterable[str], embedding_VC: Tensor) -> None:
        """Scales fresh vectors to the standard deviation of the embedding's entries: one token must not swamp a small
        model. `embedding_VC` must hold the trained weights by now."""
        for head in heads:
            self.vectors[head].mul_(embedding_VC.std())

    @contextmanager
    def given_boxes(self, boxes_B4: Tensor) -> Iterator[None]:
        """Inside, `<track_box>` of row b is the box boxes_B4[b] (xyxy fractions; nan: the row has none)."""
        self._boxes_B4 = boxes_B4
        try:
            yield
        finally:
            self._boxes_B4 = None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, slots keep the row that they have in the embedding."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def embed(self, module: nn.Module, args: tuple[Tensor, ...], output_BLC: Tensor) -> Tensor:
        """Forward hook of the input embedding; replaces the rows of slots and given boxes, and no other."""
        if self._silent:
            return output_BLC
        ids_BL = args[0]
        for head, vector in self.vectors.items():
            slots_BL1 = (ids_BL == self.slot_ids[head])[..., None]
            output_BLC = torch.where(slots_BL1, vector.to(output_BLC.dtype), output_BLC)
        if self.loc_encoder is None or self._boxes_B4 is None:
            return output_BLC
        boxes_B4 = self._boxes_B4
        assert len(boxes_B4) == len(ids_BL), "one given box (or nan) for each row"
        with torch.autocast(boxes_B4.device.type, enabled=False):
            rows_B1C = self.loc_encoder(boxes_B4.float().nan_to_num())[:, None]
        given_BL = (ids_BL == self.track_box_id) & boxes_B4.isfinite().all(1)[:, None]
        return torch.where(given_BL[..., None], rows_B1C.to(output_BLC.dtype), output_BLC)
