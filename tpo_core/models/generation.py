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
    """Continue left-padded prompts until every row has ended.

    prompt: output of the language model on the prompts, with its cache; project: hidden (B, C) -> logits (B, V).
    A row may exceed `max_new_tokens` by the slot of an indicator that was its last token.
    """
    batch = len(attention_mask_BL)
    decoded = Decoded([[] for _ in range(batch)])
    done = [False] * batch
    output, mask_BL = prompt, attention_mask_BL
    while True:
        choice_B = project(output.last_hidden_state[:, -1]).argmax(-1).tolist()
        fed = [grammar.pad_id] * batch
        for row, ids in enumerate(decoded.token_ids):
            if not done[row]:
                token = next_token(ids, choice_B[row], grammar, max_new_tokens)
                done[row] = token is None
                if token is not None:
                    ids.append(token)
                    fed[row] = token
        if all(done):
            return decoded
        fed_B1 = torch.tensor(fed, device=mask_BL.device)[:, None]
        mask_BL = torch.cat([mask_BL, torch.ones_like(fed_B1)], 1)
        output = step(fed_B1, mask_BL, past_key_values=output.past_key_values, use_cache=True)
        for row, ids in enumerate(decoded.token_ids):
            if not done[row] and len(ids) > 1 and ids[-2] in grammar.heads:
                head, _ = grammar.heads[ids[-2]]
                decoded.hidden.setdefault(head, {}).setdefault(row, output.last_hidden_state[row, -1])


def next_token(ids: list[int], choice: int, grammar: Grammar, max_new_tokens: int) -> int | None:
    """The token that follows `ids`, None when the answer is finished."""
    if ids and ids[-1] in grammar.heads:
        return grammar.heads[ids[-1]][1]
    if len(ids) >= max_new_tokens or choice in grammar.end_ids:
        return None
    return choice
