import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from tpo_core.models.task_tokens import TASK_TOKENS, TaskTokens, add_task_tokens

SLOT, BOX = 5, 6


@pytest.fixture
def tokens() -> TaskTokens:
    torch.manual_seed(0)
    return TaskTokens({"region": SLOT}, BOX, hidden_size=32)


def test_only_slot_rows_are_replaced_and_by_the_vector(tokens):
    ids = torch.tensor([[1, SLOT, 2], [SLOT, BOX, 3]])
    rows = torch.randn(2, 3, 32)
    replaced = tokens.embed(None, (ids,), rows)
    slots = ids == SLOT
    torch.testing.assert_close(replaced[slots], tokens.vectors["region"].expand(2, 32))
    assert torch.equal(replaced[~slots], rows[~slots])


def test_a_given_box_replaces_its_token_in_its_row_only(tokens):
    ids = torch.tensor([[BOX, 1], [1, BOX], [BOX, 1]])
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9], [torch.nan] * 4])
    rows = torch.randn(3, 2, 32)
    with tokens.given_boxes(boxes):
        replaced = tokens.embed(None, (ids,), rows)
    torch.testing.assert_close(replaced[0, 0], tokens.loc_encoder(boxes[0]))
    torch.testing.assert_close(replaced[1, 1], tokens.loc_encoder(boxes[1]))
    assert torch.equal(replaced[2], rows[2])
    assert torch.equal(tokens.embed(None, (ids,), rows), rows)


def test_gradients_reach_vector_and_encoder_and_stay_finite_beside_rows_without_a_box(tokens):
    ids = torch.tensor([[BOX, SLOT], [1, 1]])
    with tokens.given_boxes(torch.tensor([[0.1, 0.2, 0.3, 0.4], [torch.nan] * 4])):
        tokens.embed(None, (ids,), torch.randn(2, 2, 32)).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in tokens.parameters())


def test_without_heads_there_is_nothing_to_learn_or_replace():
    empty = TaskTokens({}, BOX, hidden_size=32)
    rows = torch.randn(1, 2, 32)
    with empty.given_boxes(torch.zeros(1, 4)):
        assert torch.equal(empty.embed(None, (torch.tensor([[SLOT, BOX]]),), rows), rows)
    assert list(empty.parameters()) == []


@pytest.mark.parametrize(("spare", "rows_after"), [(0, 7), (64, 64)])
def test_tokens_are_added_with_mean_rows_and_a_padded_vocabulary_keeps_its_size(
    tokenizer, make_config, spare, rows_after
):
    old = len(tokenizer)
    vlm = LlavaOnevisionForConditionalGeneration(make_config(old + spare))
    before = vlm.lm_head.weight.detach().clone()
    add_task_tokens(tokenizer, vlm)
    assert vlm.get_input_embeddings().num_embeddings == old + rows_after
    assert vlm.lm_head.weight.shape[0] == old + rows_after
    ids = tokenizer.convert_tokens_to_ids(list(TASK_TOKENS))
    assert ids == list(range(old, old + 7))
    torch.testing.assert_close(vlm.lm_head.weight[ids], before[:old].mean(0).expand(7, -1))
    assert torch.equal(vlm.lm_head.weight[:old], before[:old])
    assert tokenizer.encode("<box_begin><boxes>.")[:2] == [ids[0], ids[3]]


def test_ids_beyond_the_count_of_tokens_get_their_rows(tokenizer, make_config):
    """As where a vocabulary has holes: an id is not the number of tokens before it."""

    class Holed:
        def __len__(self) -> int:
            return len(tokenizer) - 3

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

    vlm = LlavaOnevisionForConditionalGeneration(make_config(len(tokenizer)))
    add_task_tokens(Holed(), vlm)
    ids = tokenizer.convert_tokens_to_ids(list(TASK_TOKENS))
    assert vlm.get_input_embeddings()(torch.tensor(ids)).isfinite().all()
    assert vlm.lm_head.weight.shape[0] == max(ids) + 1


def test_a_tied_output_layer_is_untied_without_changing_the_weights(tokenizer, make_config):
    config = make_config(len(tokenizer))
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    vlm = LlavaOnevisionForConditionalGeneration(config)
    add_task_tokens(tokenizer, vlm)
    embedding, head = vlm.get_input_embeddings().weight, vlm.lm_head.weight
    assert embedding is not head
    torch.testing.assert_close(embedding[: len(tokenizer)], head[: len(tokenizer)])
