"""What a model directory says of pixels and prompts, and whether it fits the model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError

PREPROCESSOR = "preprocessor_config.json"
NESTED = "processor_config.json"  # transformers 5 writes the settings of all parts into this one file
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as preprocessor configs give them


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation by channel, of pixels in [0, 1]; resample: how frames are resized."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str = "bicubic"


def read_preprocessor(path: Path) -> dict[str, Any]:
    """The settings of the image processor of a model directory. Raises TpoError where there are none."""
    for name, key in ((PREPROCESSOR, None), (NESTED, "image_processor")):
        if (path / name).exists():
            settings = read_object(path / name)
            if key is None or key in settings:
                return settings if key is None else settings[key]
    raise TpoError(f"{path} has no {PREPROCESSOR} with image_mean and image_std: copy it from the base model")


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds one object. Raises TpoError when it is damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TpoError(f"{file} is damaged: copy it again") from error
    if not isinstance(value, dict):
        raise TpoError(f"{file} is damaged: it holds no object; copy it again")
    return value


def normalisation(path: Path, settings: dict[str, Any]) -> Normalisation:
    """What the settings of `path` say. Raises TpoError unless mean and deviation of three channels are among them."""
    values = []
    for name in ("image_mean", "image_std"):
        value = settings.get(name)
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(one, int | float) for one in value):
            raise TpoError(f"{path / PREPROCESSOR} has no {name} of three numbers: copy it from the base model")
        values.append(tuple(float(one) for one in value))
    if 0 in values[1]:
        raise TpoError(f"{path / PREPROCESSOR} has an image_std of 0: copy it from the base model")
    number = settings.get("resample", 3)
    if number not in RESAMPLING:
        raise TpoError(f"{path / PREPROCESSOR} resizes by method {number}; {RESAMPLING} are known: set resample")
    return Normalisation(values[0], values[1], RESAMPLING[number])


def resample_setting(resample: str) -> dict[str, int]:
    """The entry of a preprocessor config for a way of resizing; none for the one that `normalisation` assumes."""
    return {} if resample == "bicubic" else {"resample": next(n for n, name in RESAMPLING.items() if name == resample)}


def require_size(path: Path, settings: dict[str, Any], image_size: int) -> None:
    """Raises TpoError when the settings of `path` make images of another size than the model takes (pixels a side)."""
    for name in ("image_size", "crop_size", "size"):
        given = settings.get(name)
        if isinstance(given, dict):
            given = given.get("height", given.get("shortest_edge"))
        if given is None:
            continue
        if given != image_size:
            raise TpoError(
                f"{path / PREPROCESSOR} makes images of {given} pixels a side ({name}), the model of {path} takes "
                f"{image_size}: take both from one base model"
            )
        return


def require_placeholder(tokenizer: Any, token_id: int | None) -> str:
    """The placeholder of visual tokens. Raises TpoError when the tokenizer has no such special token."""
    added = tokenizer.added_tokens_decoder
    if token_id not in added:
        raise TpoError(
            f"the config has {token_id} as placeholder of visual tokens, and the tokenizer has no added token of that "
            "id: take tokenizer and config from one base model"
        )
    return str(added[token_id])


def read_template(path: Path) -> str:
    """The chat template of a processor directory, for tokenizers that do not carry one."""
    jinja, wrapped = (path / name for name in TEMPLATE_FILES)
    if jinja.exists():
        return jinja.read_text()
    if wrapped.exists():
        template = read_object(wrapped).get("chat_template")
        if isinstance(template, str):
            return template
    raise TpoError(f"{path} has no chat template (tokenizer_config.json, {', '.join(TEMPLATE_FILES)}): add one")
