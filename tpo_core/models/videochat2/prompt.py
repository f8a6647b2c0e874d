"""Where the published VideoChat-TPO puts text and visual tokens.

A prompt is a list of text fragments with the place of the visual tokens between two of them. The tokenizer begins every
fragment with <s>, so where a fragment ends is part of the format. What a user says goes in as plain strings: neither
`<boxes>` nor `</s>` nor `<Video>` in it is more than its letters.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tpo_core.models.videochat2.tokenizer import Marker

END = Marker("</s>")
BEST_OPTION = "Best Option: ("

Fragment = tuple[str | Marker, ...]


@dataclass(frozen=True)
class Visual:
    """The place of the visual tokens."""


Part = Fragment | Visual


def frame_times(times_s: Sequence[float]) -> str:
    """ " The video contains 16 frames sampled at 0.2, 0.5, ... seconds.", tenths of a second."""
    at = ", ".join(str(round(time, 1)) for time in times_s)
    return f" The video contains {len(times_s)} frames sampled at {at} seconds."


def asks_for_times(text: str) -> bool:
    """Whether a question is preceded by the times of the frames, by the rule of the published application."""
    return "timestamp" in text


def media_turn(*, is_image: bool, system: str = "", message: str = "", rest: Fragment = ()) -> list[Part]:
    """System text, the visual tokens between their tags, a message, and what goes on in the same fragment."""
    name = "Image" if is_image else "Video"
    return [(f"{system}[INST] <{name}>",), Visual(), (f"</{name}>{message.rstrip()}[/INST]", *rest)]


def question(*text: str | Marker) -> Fragment:
    """A question with its blanks; without a question, a blank."""
    return (" [INST] ", *text, " [/INST] ") if any(text) else (" ",)


def chat(*text: str | Marker, is_image: bool, system: str = "", message: str = "") -> list[Part]:
    """One question about a clip or an image, as in the published application: three fragments."""
    return [*media_turn(is_image=is_image, system=system, message=message), question(*text)]


def multiple_choice(
    text: str,
    *,
    is_image: bool,
    system: str = "",
    message: str = "",
    history: Iterable[tuple[str, str]] = (),
    best_option: bool = False,
) -> list[Part]:
    """A question of an evaluation, as in the published `generate_answer`: two fragments, earlier turns included.

    best_option: begin the answer, so that the model goes on with a letter.
    """
    rest: list[str | Marker] = []
    for asked, answer in history:
        rest += [f" [INST] {asked} [/INST]{answer}", END]
    rest.append(f" [INST] {text} [/INST]" + (BEST_OPTION if best_option else ""))
    return media_turn(is_image=is_image, system=system, message=message, rest=tuple(rest))


def encode(parts: Iterable[Part], encode_text: Callable[[Fragment], list[int]], visual_ids: Sequence[int]) -> list[int]:
    """Ids of a prompt. encode_text: `FragmentTokenizer.encode`; visual_ids: what stands for the visual tokens."""
    ids: list[int] = []
    for part in parts:
        ids += visual_ids if isinstance(part, Visual) else encode_text(part)
    return ids
