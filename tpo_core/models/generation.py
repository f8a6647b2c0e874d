"""Batched greedy decoding with a key-value cache, in the order of training.

Once the model writes an indicator, the next token is not chosen but given: the slot of its head, whose embedding is
the task vector. The hidden state at that step is what the head reads, exactly as in training, where the slot follows
the indicator and carries no loss. (The published code feeds the vector before the indicator is in the cache.)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Decoded:
    """token_ids: per row what was written, without the end token. hidden: per head {row: (C,) state at its slot}."""

    token_ids: list[list[int]]
    hidden: dict[str, dict[int, Tensor]] = field(default_factory=dict)


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
) -> Decoded:
    """Continue left-padded prompts until every row has ended; once half of the rows have, the others go on alone.

    prompt: output of the language model on the prompts, with its cache; project: hidden (B, C) -> logits (B, V).
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
            token = None if row in done else next_token(ids, choice_R[place], grammar, max_new_tokens)
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
        fed_R1 = torch.tensor(fed, device=mask_RL.device)[:, None]
        mask_RL = torch.cat([mask_RL, torch.ones_like(fed_R1)], 1)
        output = step(fed_R1, mask_RL, past_key_values=cache, use_cache=True)
        for place, row in enumerate(rows):
            ids = decoded.token_ids[row]
            if row not in done and len(ids) > 1 and ids[-2] in grammar.heads:
                head, _ = grammar.heads[ids[-2]]
                decoded.hidden.setdefault(head, {}).setdefault(row, output.last_hidden_state[place, -1])


def next_token(ids: list[int], choice: int, grammar: Grammar, max_new_tokens: int) -> int | None:
    """The token that follows `ids`, None when the answer is finished."""
    if ids and ids[-1] in grammar.heads:
        return grammar.heads[ids[-1]][1]
    if len(ids) >= max_new_tokens or choice in grammar.end_ids:
        return None
    return choice
