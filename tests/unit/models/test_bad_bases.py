"""A base whose weights or tokenizer are not those of its config is refused: nothing starts at random unseen."""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tpo_core.errors import TpoError
from tpo_core.models.task_tokens import TASK_TOKENS, require_task_tokens
from tpo_core.models.tpo import TpoModel

NAME = "model.language_model.layers.0.mlp.up_proj.weight"
STORED = "language_model.model.layers.0.mlp.up_proj.weight"  # LLaVA's files have names of their own


@pytest.fixture
def copied(base, tmp_path):
    return shutil.copytree(base, tmp_path / "base")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder, config):
    with pytest.raises(TpoError) as caught:
        TpoModel.from_base(str(folder), config, [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_tensor_is_named(copied, config):
    change(copied, lambda tensors: tensors.pop(STORED))
    assert f"lack {NAME} (1 tensors differ)" in refusal(copied, config)


def test_a_misshaped_tensor_is_named_with_both_shapes(copied, config):
    change(copied, lambda tensors: tensors.update({STORED: torch.zeros(3, 32)}))
    assert f"hold {NAME} as (3, 32) where its config.json has (64, 32)" in refusal(copied, config)


def test_a_file_that_was_cut_off_is_told(copied, config):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert "no weights that can be read" in refusal(copied, config)


def test_further_tensors_are_told_and_change_nothing(copied, base, config, caplog):
    change(copied, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(0)
        model = TpoModel.from_base(str(copied), config, [])
    assert "holds extra.weight and 0 more tensors that the model does not have" in caplog.text
    torch.manual_seed(0)
    plain = TpoModel.from_base(str(base), config, []).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())


class Names:
    """A tokenizer of these tokens; unknown ones have the id `unknown`."""

    def __init__(self, tokens, unknown):
        self.tokens, self.unknown = tokens, unknown

    def convert_tokens_to_ids(self, tokens):
        return [self.tokens.index(each) if each in self.tokens else self.unknown for each in tokens]


@pytest.mark.parametrize(
    ("tokens", "unknown", "rows"), [((), 0, 9), ((), None, 9), (TASK_TOKENS[:6], None, 9), (TASK_TOKENS, 0, 6)]
)
def test_a_tokenizer_that_does_not_fit_is_refused(tokens, unknown, rows):
    with pytest.raises(TpoError, match=r"the tokenizer does not fit the model"):
        require_task_tokens(Names(tokens, unknown), rows)


def test_a_tokenizer_with_a_row_for_every_task_token_fits():
    require_task_tokens(Names(TASK_TOKENS, None), len(TASK_TOKENS))


def test_a_saved_model_with_the_tokenizer_of_its_base_is_refused(make_model, base, tmp_path):
    make_model().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, tmp_path / name)
    with pytest.raises(TpoError, match=r"the tokenizer does not fit the model"):
        TpoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", ["tpo.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}'])
def test_damaged_settings_are_told(make_model, tmp_path, file, content):
    make_model(()).save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(TpoError, match=file.replace(".", r"\.")) as caught:
        TpoModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
