"""What people write is letters, never tokens that steer the model.

A tokenizer takes every string that spells one of its added tokens for that token: a question that quotes "<boxes>"
would call a head, one that quotes "<|video_pad|>" would ask for pixels, one that quotes "<|im_end|>" would end its own
turn. Such passages are marked before the chat template is rendered, and encoded by the same tokenizer without its added
tokens afterwards. Text without such a passage is tokenised as ever; so are added tokens that steer nothing, like the
runs of line breaks in the vocabulary of Gemma.
"""

import json
import re
from collections.abc import Collection
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from tpo_core.errors import TpoError

_MARK = "\x00plain-{}\x00"
_MARKED = re.compile("\x00plain-([0-9a-f]+)\x00")


class Literals:
    """Marks the passages of a text that `tokenizer` would take for steering tokens, and encodes marked text.

    tokenizer: of Hugging Face's fast kind, with all its tokens. steering: tokens that count as such besides those that
    the tokenizer itself calls special; passages: other strings that mean something in a rendered conversation.
    """

    def __init__(self, tokenizer: Any, steering: Collection[str], passages: Collection[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.steering = frozenset(steering)
        self.passages = tuple(passages)

    @cached_property
    def _token_of(self) -> dict[int, str]:
        """The steering tokens by id."""
        added = {number: (str(token), token.special) for number, token in self.tokenizer.added_tokens_decoder.items()}
        return {number: text for number, (text, special) in added.items() if special or text in self.steering}

    def steers(self, token: int) -> bool:
        """Whether a token is a steering one."""
        return token in self._token_of

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without its added tokens."""
        table = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return Tokenizer.from_str(json.dumps({**table, "added_tokens": [], "post_processor": None}))

    def mark(self, text: str, *, keep: Collection[str] = (), at_most: int | None = None) -> str:
        """`text` with its steering tokens marked as letters, but for those in `keep` (the first `at_most` of them)."""
        text = text.replace("\x00", "")  # only marks have it
        for passage in self.passages:
            text = text.replace(passage, _MARK.format(passage.encode().hex()))
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        parts, end, kept = [], 0, 0
        for token, (start, stop) in zip(read["input_ids"], read["offset_mapping"], strict=True):
            if token not in self._token_of:
                continue
            if self._token_of[token] in keep and (at_most is None or kept < at_most):
                kept += 1
                continue
            parts += [text[end:start], _MARK.format(text[start:stop].encode().hex())]
            end = stop
        return "".join([*parts, text[end:]])

    def encode(self, text: str) -> list[int]:
        """Token ids of a marked text, without the tokens that a tokenizer puts around a text of its own accord."""
        ids: list[int] = []
        for place, part in enumerate(_MARKED.split(text)):
            if place % 2:
                ids += self._letters(bytes.fromhex(part).decode())
            elif part:
                ids += self.tokenizer(part, add_special_tokens=False)["input_ids"]
        return ids

    def _letters(self, literal: str) -> list[int]:
        """Ids of a passage in one piece, or, where the vocabulary itself holds that piece, letter by letter."""
        for pieces in ([literal], list(literal)):
            ids = [token for piece in pieces for token in self._plain.encode(piece, add_special_tokens=False).ids]
            if not any(token in self._token_of for token in ids):
                return ids
        raise TpoError(f"the tokenizer cannot spell {literal!r} in letters: write it in another way")
