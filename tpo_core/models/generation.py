"""Batched greedy decoding with a key-value cache, in the order of training or in the published one.

In the order of training an indicator is followed by the slot of its head: the next token is not chosen but given, its
embedding is the task vector, and the hidden state at that step is what the head reads. The slot belongs to the answer
and stays in the cache, as in the training text.

The published code instead feeds the vector before the indicator is in the cache, reads the hidden state, takes the
vector out of the cache again, and goes on with the indicator, after which the model writes what it likes. Weights that
were published with that code may be asked in its order: `ahead`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class HeadCall:
    """Prompt `row` called `head`, which reads hidden_C."""

    row: int
    head: str
    hidden_C: Tensor


@dataclass
class Decoded:
    """token_ids: per row what was written, without the end token. calls: in the order in which they were made."""

    token_ids: list[list[int]]
    calls: list[HeadCall] = field(default_factory=list)


@dataclass(frozen=True)
class Grammar:
    """heads: indicator id -> (head name, slot id); end_ids: ids that end an answer; pad_id: fed to finished rows."""

    heads: dict[int, tuple[str, int]]
    end_ids: frozenset[int]
    pad_id: int


Step = Callable[..., Any]  # (input_ids, attention_mask, past_key_values=, use_cache=) -> output with last_hidden_state


def greedy(
    step: Step,
    project: Callable[[Tensor], Tensor],
    prompt: Any,
    attention_mask_BL: Tensor,
    grammar: Grammar,
    max_new_tokens: int,
    ahead: Step | None = None,
) -> Decoded:
    """Continue left-padded prompts until every row has ended; once half of the rows have, the others go on alone.

    prompt: output of the language model on the prompts, with its cache; project: hidden (B, C) -> logits (B, V).
    ahead: feeds the slots in the published order, which `step` then never does; None is the order of training.
    A row may exceed `max_new_tokens` by the slot of an indicator that was its last token.
    """
    decoded = Decoded([[] for _ in range(len(attention_mask_BL))])
    rows = list(range(len(attention_mask_BL)))  # of the prompts, those that the running batch still holds
    done: set[int] = set()
    output, mask_RL = prompt, attention_mask_BL
    while True:
        choice_R = project(output.last_hidden_state[:, -1]).argmax(-1).tolist()
        fed = [grammar.pad_id] * len(rows)
        for place, row in enumerate(rows):
            ids = decoded.token_ids[row]
            token = (
                None
                if row in done
                else next_token(ids, choice_R[place], grammar, max_new_tokens, give_slots=ahead is None)
            )
            if token is None:
                done.add(row)
            else:
                ids.append(token)
                fed[place] = token
        live = [place for place, row in enumerate(rows) if row not in done]
        if not live:
            return decoded
        cache = output.past_key_values
        if 2 * len(live) <= len(rows):
            keep = torch.tensor(live, device=mask_RL.device)
            cache.batch_select_indices(keep)
            mask_RL, rows, fed = mask_RL[keep], [rows[place] for place in live], [fed[place] for place in live]
        if ahead is not None:
            decoded.calls += _calls_ahead(ahead, cache, mask_RL, rows, fed, grammar)
        output = _feed(step, fed, mask_RL, cache)
        mask_RL = torch.cat([mask_RL, torch.ones_like(mask_RL[:, :1])], 1)
        if ahead is not None:
            continue
        for place, row in enumerate(rows):
            ids = decoded.token_ids[row]
            if row not in done and len(ids) > 1 and ids[-2] in grammar.heads:
                decoded.calls.append(HeadCall(row, grammar.heads[ids[-2]][0], output.last_hidden_state[place, -1]))


def _feed(step: Step, fed: list[int], mask_RL: Tensor, cache: Any) -> Any:
    fed_R1 = torch.tensor(fed, device=mask_RL.device)[:, None]
    seen = torch.cat([mask_RL, torch.ones_like(mask_RL[:, :1])], 1)
    return step(fed_R1, seen, past_key_values=cache, use_cache=True)


def _calls_ahead(
    ahead: Step, cache: Any, mask_RL: Tensor, rows: list[int], fed: list[int], grammar: Grammar
) -> list[HeadCall]:
    """The calls of the rows that are about to be fed an indicator; the cache is left as it was."""
    calling = {place: grammar.heads[token] for place, token in enumerate(fed) if token in grammar.heads}
    if not calling:
        return []
    slots = [calling[place][1] if place in calling else grammar.pad_id for place in range(len(fed))]
    cuts_back = cache.is_croppable and not any(cache.is_sliding)  # neither windows nor recurrent states can
    states_R1C = _feed(ahead, slots, mask_RL, cache if cuts_back else copy.deepcopy(cache)).last_hidden_state
    if cuts_back:
        cache.crop(-1)
    return [HeadCall(rows[place], head, states_R1C[place, -1]) for place, (head, _) in calling.items()]


def next_token(
    ids: list[int], choice: int, grammar: Grammar, max_new_tokens: int, *, give_slots: bool = True
) -> int | None:
    """The token that follows `ids`, None when the answer is finished."""
    if give_slots and ids and ids[-1] in grammar.heads:
        return grammar.heads[ids[-1]][1]
    if len(ids) >= max_new_tokens or choice in grammar.end_ids:
        return None
    return choice
