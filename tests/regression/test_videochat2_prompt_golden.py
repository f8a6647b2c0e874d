"""Tokenizer and prompts of VideoChat2 against published ids.

The ids belong to one SentencePiece file, that of Mistral-7B v0.1 and v0.2, which the pack names by its digest; it is
not part of this repository. Put it at tests/golden/models/tokenizer.model or name its place in MISTRAL_TOKENIZER
(Apache-2.0; the package mistral-common 1.5.0 holds it as tokenizer.model.v1).
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tpo_core.models.videochat2 import prompt
from tpo_core.models.videochat2.tokenizer import FragmentTokenizer, Marker

PACKS = Path(__file__).resolve().parents[1] / "golden" / "models"
PACK: dict[str, Any] = json.loads((PACKS / "tokenizer_and_prompt.json").read_text())
MODEL = Path(os.environ.get("MISTRAL_TOKENIZER", PACKS / "tokenizer.model"))
SLOT = -1
needs_model = pytest.mark.skipif(
    not MODEL.exists(), reason="MISTRAL_TOKENIZER names no tokenizer.model, which is not ours to ship"
)


@pytest.fixture(scope="module")
def tokenizer() -> FragmentTokenizer:
    content = MODEL.read_bytes()
    assert hashlib.sha256(content).hexdigest() == PACK["tokenizer_model"]["sha256"]
    return FragmentTokenizer(content, added=list(PACK["added_tokens"]))


def parts_of(case: dict[str, Any]) -> list[prompt.Part]:
    common = {"is_image": case["media"] == "image", "message": case["msg"]}
    if case["kind"] == "app":
        return prompt.chat(case["question"], **common)
    return prompt.multiple_choice(
        case["question"], system=case["system"], history=case["history"], best_option=case["best_option"], **common
    )


def ids_of(case: dict[str, Any]) -> list[int]:
    """The published ids, SLOT on visual slots."""
    return [id_ for run in case["segments"] for id_ in (run["ids"] if run["kind"] == "text" else [SLOT] * run["count"])]


@needs_model
def test_ids_of_the_tokens(tokenizer):
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in PACK["added_tokens"]} == PACK["added_tokens"]
    special = PACK["special_ids"]
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in special if name != "pad"} == {
        name: id_ for name, id_ in special.items() if name != "pad"
    }
    assert tokenizer.pad_token_id == special["pad"]
    assert len(tokenizer) == PACK["vocabulary_size"]


@needs_model
@pytest.mark.parametrize("case", PACK["strings"], ids=lambda case: repr(case["text"]))
def test_ids_of_a_fragment(tokenizer, case):
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids"][1:]) == case["text"]


@needs_model
@pytest.mark.parametrize("case", PACK["conversations"], ids=lambda case: f"{case['kind']}-{case['question'][:12]}")
def test_ids_of_a_prompt(tokenizer, case):
    ids = prompt.encode(parts_of(case), tokenizer.encode, [SLOT] * case["slot_count"])
    assert ids == ids_of(case)
    assert len(ids) == case["length"]


@pytest.mark.parametrize("case", PACK["conversations"], ids=lambda case: f"{case['kind']}-{case['question'][:12]}")
def test_fragments_and_slots_of_a_prompt(case):
    """Without the published file: the order of fragments, slots and end tokens, whatever the ids of words."""
    special = PACK["special_ids"]

    def skeleton(ids: list[int]) -> list[int]:
        return [id_ for id_ in ids if id_ in (SLOT, special["<s>"], special["</s>"])]

    def encode(fragment: prompt.Fragment) -> list[int]:
        return [special["<s>"], *(special[part.token] for part in fragment if isinstance(part, Marker))]

    assert skeleton(prompt.encode(parts_of(case), encode, [SLOT] * case["slot_count"])) == skeleton(ids_of(case))
    assert ids_of(case).index(SLOT) == case["slot_start"]
