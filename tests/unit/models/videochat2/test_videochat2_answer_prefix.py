"""A question of an evaluation is put as the published `generate_answer` puts it: one fragment behind the frames."""

from dataclasses import replace

from tpo_core.data.record import Turn
from tpo_core.models.videochat2 import prompt
from tpo_core.models.videochat2.processor import VideoChat2Processor


def test_the_prompt_is_that_of_generate_answer(tokenizer, vlm, make_example, tmp_path):
    processor = VideoChat2Processor.from_folder(tmp_path, tokenizer, vlm.config)
    example = make_example("chat", 2)
    turns = (Turn("system", "Watch."), *example.sample.turns)
    asked = replace(example, sample=replace(example.sample, turns=turns), answer_prefix=prompt.BEST_OPTION)
    ids, _ = processor.encode_text(asked, train=False)
    parts = prompt.multiple_choice("Where is the red ball?", is_image=False, system="Watch.\n", best_option=True)
    assert ids.tolist() == prompt.encode(parts, tokenizer.encode, [processor.video_token_id] * 3)
