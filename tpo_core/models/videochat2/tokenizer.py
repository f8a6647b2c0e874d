"""The tokenizer of VideoChat2: SentencePiece, piece by piece between markers.

Hugging Face's LlamaTokenizer does not give the published ids from the same tokenizer.model; this routine does. A text
is cut at markers (the three special tokens of SentencePiece and all added tokens); every piece between them is encoded
on its own, with a dummy blank before it and its blanks kept. In front of every text fragment stands the token <s>:
published VideoChat-TPO prompts have up to three of them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from tpo_core.errors import TpoError

MODEL_FILE = "tokenizer.model"
SETTINGS_FILE = "fragment_tokenizer.json"


@dataclass(frozen=True)
class Marker:
    """A token within a text, told apart from its letters."""

    token: str


class FragmentTokenizer:
    """Encodes and decodes fragments; picklable. Has the part of a Hugging Face tokenizer's interface that the platform
    uses.

    model: content of a SentencePiece file. added: further tokens, in the order of their ids. bos_per_fragment: whether
    <s> is put in front of each fragment, as published, or nowhere.
    """

    def __init__(self, model: bytes, *, added: Sequence[str] = (), bos_per_fragment: bool = True) -> None:
        self._pieces = SentencePieceProcessor(model_proto=model)
        self._model = model
        self.bos_per_fragment = bos_per_fragment
        self.bos_token_id: int = self._pieces.bos_id()
        self.eos_token_id: int = self._pieces.eos_id()
        self.unk_token_id: int = self._pieces.unk_id()
        # The published model pads with <unk>. Padding is known by the attention mask, never by its id.
        self.pad_token_id = self.unk_token_id
        named = (self.unk_token_id, self.bos_token_id, self.eos_token_id)
        self._special_ids = frozenset(id_ for id_ in named if id_ >= 0)
        self._marker_ids: dict[str, int] = {self._pieces.id_to_piece(id_): id_ for id_ in sorted(self._special_ids)}
        self.add_tokens(added)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "FragmentTokenizer":
        """From a folder with a tokenizer.model, and the settings if `save_pretrained` wrote it.

        Raises TpoError when there is no tokenizer.model, or one of the two is damaged.
        """
        path = Path(directory)
        if not (path / MODEL_FILE).exists():
            raise TpoError(f"{path} has no {MODEL_FILE}: copy the SentencePiece file of the base model there")
        settings = path / SETTINGS_FILE
        try:
            known = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
            return cls((path / MODEL_FILE).read_bytes(), **known)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise TpoError(f"{path} has a damaged {MODEL_FILE} or {SETTINGS_FILE}: copy both again") from error

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the SentencePiece file and the settings into an existing folder."""
        path = Path(directory)
        (path / MODEL_FILE).write_bytes(self._model)
        settings = {"added": self.added, "bos_per_fragment": self.bos_per_fragment}
        (path / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def __len__(self) -> int:
        """Ids that need a row in the embedding."""
        return self._pieces.get_piece_size() + len(self.added)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._model, self.added, self.bos_per_fragment)

    @property
    def added(self) -> list[str]:
        return [token for token, id_ in self._marker_ids.items() if id_ not in self._special_ids]

    def add_tokens(self, tokens: Sequence[str]) -> int:
        """Give the tokens that are not there yet the next ids; returns how many these are."""
        new = [token for token in dict.fromkeys(tokens) if token not in self._marker_ids]
        for token in new:
            self._marker_ids[token] = len(self)
        return len(new)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a marker or a SentencePiece piece, or a list of ids for several; <unk> for what is neither."""
        if isinstance(tokens, str):
            return self._marker_ids.get(tokens, self._pieces.piece_to_id(tokens))
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def encode(self, fragment: str | Iterable[str | Marker], *, bos: bool | None = None) -> list[int]:
        """Ids of one text fragment.

        fragment: a string, in which every known marker is its token; or plain strings and markers in turn, where a
        string says no more than its letters: nothing that a user writes in one can pass for a slot or an end.
        bos: whether <s> comes first (default: `bos_per_fragment`). Raises TpoError for a marker that was not added.
        """
        parts = marked(fragment, self._marker_ids) if isinstance(fragment, str) else fragment
        first = self.bos_per_fragment if bos is None else bos
        ids = [self.bos_token_id] if first else []
        plain = ""
        for part in parts:
            if isinstance(part, str):
                plain += part
                continue
            ids += [*self._encode_plain(plain), self._marker_id(part)]
            plain = ""
        return ids + self._encode_plain(plain)

    def _encode_plain(self, text: str) -> list[int]:
        return self._pieces.encode(text) if text else []

    def _marker_id(self, marker: Marker) -> int:
        if marker.token not in self._marker_ids:
            raise TpoError(f"{marker.token} is no token of this tokenizer: add it with add_tokens first")
        return self._marker_ids[marker.token]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """{"input_ids": ids} of one fragment; `add_special_tokens=False`: without <s>."""
        return {"input_ids": self.encode(text, bos=self.bos_per_fragment and add_special_tokens)}

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text that these ids are the encoding of; `skip_special_tokens`: without <unk>, <s> and </s>."""
        strings = {id_: token for token, id_ in self._marker_ids.items()}
        text, run = "", list[int]()
        for id_ in map(int, ids):
            if id_ not in strings:
                run.append(id_)
                continue
            text, run = text + self._pieces.decode(run), []
            if not (skip_special_tokens and id_ in self._special_ids):
                text += strings[id_]
        return text + self._pieces.decode(run)


def marked(text: str, markers: Iterable[str]) -> list[str | Marker]:
    """The text with each occurrence of one of the strings as a marker, longer ones first."""
    choices = "|".join(re.escape(marker) for marker in sorted(markers, key=len, reverse=True))
    if not choices:
        return [text]
    pieces = re.split(f"({choices})", text)
    return [Marker(piece) if number % 2 else piece for number, piece in enumerate(pieces)]


def _rebuild(model: bytes, added: Sequence[str], bos_per_fragment: bool) -> FragmentTokenizer:
    return FragmentTokenizer(model, added=added, bos_per_fragment=bos_per_fragment)
