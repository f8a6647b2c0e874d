from types import SimpleNamespace

import pytest
import torch

from tpo_core.heads.base import BoxPrediction, MaskPrediction, SpanPrediction
from tpo_core.models.generation import Grammar, greedy, next_token

MARKERS = {
    "region": ("<box_begin>", "<boxes>"),
    "temporal": ("<time_begin>", "<temp>"),
    "mask": ("<track_begin>", "<tracking>"),
}


def make_it_say(model, token: str) -> None:
    """Let lm_head give `token` whatever it is asked."""
    wanted = model.processor.token_id(token)
    lm_head = model.backbone.lm_head

    def biased(hidden):
        logits = lm_head(hidden).clone()
        logits[..., wanted] += 1e4
        return logits

    model.backbone.lm_head = biased


@pytest.mark.parametrize(
    ("kind", "prediction"), [("region", BoxPrediction), ("temporal", SpanPrediction), ("mask", MaskPrediction)]
)
def test_an_indicator_is_followed_by_its_slot_and_calls_its_head(make_model, make_example, kind, prediction):
    model = make_model()
    make_it_say(model, MARKERS[kind][0])
    answer = model.chat([make_example(kind)], 1)[0]
    assert answer.token_ids == [model.processor.token_id(token) for token in MARKERS[kind]]
    assert answer.text == "".join(MARKERS[kind])
    assert answer.activated == [kind]
    assert [(name, type(found)) for name, found in answer.found] == [(kind, prediction)]


def test_a_model_without_heads_activates_but_predicts_nothing(make_model, make_example):
    model = make_model(heads=())
    make_it_say(model, "<box_begin>")
    answer = model.chat([make_example("region")], 2)[0]
    assert (answer.activated, answer.found) == (["region"], [])


def teacher_forced_box(model, example):
    """What the region head gives at the slot of the whole conversation, fed at once."""
    batch = model.processor.collate([model.processor.encode(example)])
    with torch.no_grad():
        features = model.backbone.encode(batch.pixel_values_UTCHW, batch.frame_mask_BT)
        inputs = model.backbone.visual_inputs(features, batch.frame_mask_BT, batch.times_s_BT)
        output = model.backbone.hidden_states(batch.input_ids_BL, batch.attention_mask_BL, **inputs)
        at_slot = (batch.input_ids_BL == model.processor.slot_ids["region"])[0].nonzero().item()
        found = model.heads["region"].predict(output.last_hidden_state[:, at_slot], model._context(features, batch))
    return found[0].box_xyxy


def test_the_head_reads_the_hidden_state_of_teacher_forcing(make_model, make_example):
    model = make_model().eval()
    example = make_example("region", answer="<box_begin><boxes>")
    make_it_say(model, "<box_begin>")
    predicted = model.chat([example], 1)[0].first("region").box_xyxy
    torch.testing.assert_close(predicted, teacher_forced_box(model, example), atol=1e-4, rtol=1e-4)


def test_every_call_of_a_head_is_answered_in_order(make_model, make_example):
    model = make_model()
    make_it_say(model, "<box_begin>")
    answer = model.chat([make_example("region")], 4)[0]
    assert [name for name, _ in answer.found] == ["region", "region"]
    assert answer.activated == ["region"]


def test_the_published_order_reads_the_state_of_the_slot_in_place_of_its_indicator(make_model, make_example):
    """There the vector stands where the indicator will, and what the model writes behind it is no call."""
    model = make_model(compat_skip_begin_token=True).eval()
    example = make_example("region", answer="<boxes>")
    make_it_say(model, "<box_begin>")
    answer = model.chat([example], 2)[0]
    assert answer.token_ids == [model.processor.token_id("<box_begin>")] * 2
    predicted = answer.first("region").box_xyxy
    torch.testing.assert_close(predicted, teacher_forced_box(model, example), atol=1e-4, rtol=1e-4)


def test_a_batch_of_prompts_is_answered_as_one_by_one(make_model, make_example):
    model = make_model()
    with torch.no_grad():
        model.backbone.vlm.lm_head.base_layer.weight.mul_(20)
    examples = [
        make_example("region", 2),
        make_example("temporal", 5, question="Where is the ball, and where the sun that shines?", seed=1),
        make_example("mask", 3, seed=2),
        make_example("chat", 0, seed=3),
    ]
    together = model.chat(examples, 8)
    for answer, example in zip(together, examples, strict=True):
        assert answer.token_ids == model.chat([example], 8)[0].token_ids
    assert len({tuple(answer.token_ids) for answer in together}) > 1


def test_generation_leaves_the_training_mode_as_it_was(make_model, make_example):
    model = make_model().train()
    model.chat([make_example("chat")], 1)
    assert model.training


def test_next_token_ends_at_the_limit_and_at_end_tokens_but_never_between_indicator_and_slot():
    grammar = Grammar(heads={7: ("region", 8)}, end_ids=frozenset({2}), pad_id=0)
    assert next_token([], 5, grammar, 2) == 5
    assert next_token([5], 2, grammar, 2) is None
    assert next_token([5, 5], 5, grammar, 2) is None
    assert next_token([5, 7], 2, grammar, 2) == 8


class ScriptedModel:
    """Row r of the prompts says SCRIPT[r], whatever it is fed; its cache is the list of rows that it still holds."""

    END, INDICATOR, SLOT = 2, 7, 8
    SCRIPT = ((5, END), (INDICATOR, 0, END), (5, 5, 5, 5, INDICATOR, 0, END), (END,))

    def __init__(self):
        self.widths = []
        self.rows = torch.arange(len(self.SCRIPT))
        self.count = 0

    def batch_select_indices(self, index):
        self.rows = self.rows[index]

    def output(self):
        return SimpleNamespace(last_hidden_state=self.rows[:, None, None].float(), past_key_values=self)

    def step(self, input_ids, attention_mask, past_key_values, use_cache):
        assert len(input_ids) == len(attention_mask) == len(self.rows)
        self.widths.append(len(input_ids))
        self.count += 1
        return self.output()

    def project(self, hidden):
        said = [self.SCRIPT[int(row)] for row in hidden[:, 0]]
        return torch.eye(9)[[line[self.count] if self.count < len(line) else 0 for line in said]]


class CountingModel:
    """Row r says SCRIPT[r] in turn of the tokens in its cache, which are noted as they are fed."""

    SCRIPT = ((5, 7, 5, 2), (7, 6, 2), (5, 5, 5, 5, 2))

    is_croppable, is_sliding = True, (False,)

    def __init__(self):
        self.held = [[] for _ in self.SCRIPT]

    def crop(self, count):
        assert count == -1
        for ids in self.held:
            ids.pop()

    def batch_select_indices(self, index):
        self.held = [self.held[place] for place in index.tolist()]
        self.lines = [self.lines[place] for place in index.tolist()]

    def output(self, fed):
        state = [[len(ids), line, token] for ids, line, token in zip(self.held, self.lines, fed, strict=True)]
        return SimpleNamespace(last_hidden_state=torch.tensor(state)[:, None].float(), past_key_values=self)

    def step(self, input_ids, attention_mask, past_key_values, use_cache):
        assert attention_mask.shape[1] == 1 + len(self.held[0]) + 1
        fed = input_ids[:, 0].tolist()
        for ids, token in zip(self.held, fed, strict=True):
            ids.append(token)
        return self.output(fed)

    def project(self, hidden):
        said = [self.SCRIPT[int(line)] for line in hidden[:, 1]]
        return torch.eye(9)[[line[int(n)] if n < len(line) else 0 for line, n in zip(said, hidden[:, 0], strict=True)]]


def test_in_the_published_order_a_head_is_called_ahead_and_the_cache_left_as_it_was():
    model = CountingModel()
    model.lines = list(range(3))
    fed_ahead = []

    def ahead(input_ids, *args, **named):
        fed_ahead.append((input_ids[:, 0].tolist(), [list(ids) for ids in model.held]))
        return model.step(input_ids, *args, **named)

    grammar = Grammar(heads={7: ("region", 8)}, end_ids=frozenset({2}), pad_id=0)
    mask = torch.ones(3, 1, dtype=torch.long)
    decoded = greedy(model.step, model.project, model.output([0, 0, 0]), mask, grammar, 20, ahead)
    assert decoded.token_ids == [[5, 7, 5], [7, 6], [5, 5, 5, 5]]  # what follows an indicator is the model's own choice
    assert fed_ahead == [([0, 8, 0], [[], [], []]), ([8, 0, 0], [[5], [7], [5]])]
    assert [(call.row, call.hidden_C[2].item()) for call in decoded.calls] == [(1, 8), (0, 8)]
    assert model.held == [[5, 5, 5, 5]]


def test_finished_rows_leave_the_batch_and_the_others_keep_their_answers():
    model = ScriptedModel()
    grammar = Grammar(heads={7: ("region", 8)}, end_ids=frozenset({2}), pad_id=0)
    mask = torch.ones(len(model.SCRIPT), 1, dtype=torch.long)
    decoded = greedy(model.step, model.project, model.output(), mask, grammar, 20)
    assert decoded.token_ids == [[5], [7, 8], [5, 5, 5, 5, 7, 8], []]
    assert [(call.row, call.head, int(call.hidden_C)) for call in decoded.calls] == [(1, "region", 1), (2, "region", 2)]
    assert model.widths[0] == 4
    assert model.widths[-1] == 1
