"""What heads look at besides their hidden vectors comes along from the sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.losses import mean_losses
from tests.unit.models.test_generation import make_it_say
from tpo_core.config.model import CgDetrConfig, TemporalConfig
from tpo_core.config.schema import FeaturesConfig, FramesConfig
from tpo_core.errors import TpoError
from tpo_core.models.asked import prompt_frame, query_of
from tpo_core.models.head_context import padded

WORDS = {"Where is the red ball?": 3, "Where?": 2}
SMALL = {"width": 8, "heads": 2, "sentence_heads": 2, "ffn_width": 16}


def words_of():
    """An encoder of questions: two channels, as many words as WORDS says."""
    return lambda text: np.full((WORDS.get(text, 1), 2), len(text), np.float32)


def with_features(example, clips, channels=6):
    features = np.arange(clips * channels, dtype=np.float16).reshape(clips, channels)
    return replace(example, features_SD=features)


def temporal(**changes):
    return TemporalConfig(decoder="cg_detr", cg_detr=CgDetrConfig(**SMALL, **changes))


def context_of(model, examples):
    batch = model.processor.collate([model.processor.encode(example) for example in examples])
    return model._context(model._features(batch), batch)


def test_rows_of_different_lengths_are_padded_on_the_right():
    features, mask = padded([torch.ones(2, 3), torch.ones(1, 3)], torch.device("cpu"))
    assert features[:, :, 0].tolist() == [[1, 1], [1, 0]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert padded(None, torch.device("cpu")) == (None, None)


def test_stored_clip_features_and_encoded_questions_reach_the_published_temporal_head(make_model, make_example):
    model = make_model(
        heads=("temporal",),
        temporal=temporal(clip_width=6, text_width=2, text_encoder=f"{__name__}:words_of"),
    )
    model.frames = FramesConfig(features=FeaturesConfig(encoder="a:b", clip_len_s=2.0))
    examples = [
        with_features(make_example("temporal", seed=0), 4),
        with_features(make_example("temporal", question="Where?", seed=1), 3),
    ]
    context = context_of(model, examples)
    assert context.clip_mask_BL.tolist() == [[True] * 4, [True] * 3 + [False]]
    assert context.clip_features_BLD[0, 1].tolist() == [6, 7, 8, 9, 10, 11]
    assert context.clip_len_s_B.tolist() == [2.0, 2.0]
    assert context.text_mask_BQ.tolist() == [[True] * 3, [True, True, False]]
    mean_losses(model, model.processor.collate([model.processor.encode(e) for e in examples]))["temporal"].backward()
    make_it_say(model, "<time_begin>")
    for answer in model.chat(examples, 1):
        spans_s = answer.first("temporal").spans_s
        assert ((spans_s % 2.0 < 1e-4) | (spans_s == 8.0)).all()  # whole clips of 2 s in 8 s


def test_rows_without_stored_features_are_told(make_model, make_example):
    model = make_model(heads=("temporal",), temporal=temporal(clip_width=6))
    examples = [with_features(make_example("temporal", seed=0), 4), make_example("temporal", seed=1)]
    with pytest.raises(TpoError, match="clip_width is 6, but the samples carry no clip features"):
        model(model.processor.collate([model.processor.encode(example) for example in examples]))


def test_rows_that_show_one_clip_are_known_as_such(make_model, make_example):
    model = make_model()
    examples = [make_example("temporal", seed=seed) for seed in (3, 5, 3)]
    assert context_of(model, examples).clip_B.tolist() == [0, 1, 0]


def test_frames_are_kept_only_for_heads_that_look_at_them(make_model, make_example):
    model = make_model()
    assert context_of(model, [make_example("mask")]).stored_frames is None
    model.processor.keeps_frames[True] = True
    (frames,) = context_of(model, [make_example("mask", 3)]).stored_frames
    assert frames.dtype == torch.uint8
    assert torch.equal(frames[1], torch.from_numpy(make_example("mask", 3).frames_THWC[1]).movedim(2, 0))


def test_the_query_is_the_phrase_of_the_label_or_else_the_question(make_example):
    example = make_example("temporal")
    assert query_of(example.sample) == "Where is the red ball?"
    target = replace(example.sample.targets[0], label="she runs")
    assert query_of(replace(example.sample, targets=(target,))) == "she runs"
    assert query_of(make_example("chat").sample) == "Where is the red ball?"


def test_the_prompt_frame_is_the_stored_one_on_which_the_question_gives_a_box(make_example):
    example = make_example("mask")
    assert prompt_frame(example) == 0
    given = example.sample.targets[1]
    for frame, place in ((8, 2), (9, 0)):  # the second is not stored
        targets = (example.sample.targets[0], replace(given, frame=frame))
        assert prompt_frame(replace(example, sample=replace(example.sample, targets=targets))) == place
    assert prompt_frame(make_example("chat")) == 0
