"""The files of our layout that hold no weights, for a converted VideoChat-TPO."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpo_core.config.model import HEADS
from tpo_core.config.schema import FramesConfig, ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.convert.layout import SAM2_FOLDER, Layout
from tpo_core.models.processing import PREPROCESSOR
from tpo_core.models.tpo import FORMAT, MANIFEST, SETTINGS
from tpo_core.models.videochat2.processor import IMAGE_MEAN, IMAGE_STD
from tpo_core.models.videochat2.tokenizer import MODEL_FILE, SETTINGS_FILE, FragmentTokenizer

PUBLISHED_FRAMES = 16
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def write_settings(folder: Path, layout: Layout, dtype: str) -> None:
    """config.json, generation_config.json, preprocessor_config.json, tpo.json and parameters.json.

    dtype: of all weights, as safetensors writes it.
    """
    layout.backbone.save_config(folder)
    write_pixels(folder, layout.backbone.image_size)
    sam2_size: Any = layout.sizes.sam2.image_size  # frames of 224 px would do for the language model, not for masks
    settings = {
        "format": FORMAT,
        "heads": list(HEADS),
        "model": _as_published(layout.sizes.model).model_dump(mode="json"),
        "frames": FramesConfig(n_frames=PUBLISHED_FRAMES, short_side_px=sam2_size).model_dump(mode="json"),
    }
    _write(folder / SETTINGS, settings)
    groups = {name: layout.group_of(name) for name in layout.model}
    rows = [
        {
            "name": name,
            "shape": list(value.shape),
            "dtype": DTYPES[dtype],
            "group": groups[name],
            "trained": groups[name] is not None,
        }
        for name, value in layout.model.items()
    ]
    _write(folder / MANIFEST, rows)


def _as_published(model: ModelConfig) -> ModelConfig:
    """With the SAM2 beside it, and asked in the order of the published code."""
    mask = model.mask.model_copy(update={"sam2": model.mask.sam2.model_copy(update={"source": SAM2_FOLDER})})
    return model.model_copy(update={"mask": mask, "compat_skip_begin_token": True})


def write_pixels(folder: Path, image_size: int) -> None:
    """preprocessor_config.json."""
    _write(folder / PREPROCESSOR, {"image_size": image_size, "image_mean": IMAGE_MEAN, "image_std": IMAGE_STD})


def copy_tokenizer(source: Path, folder: Path, *, rows: int, added: Sequence[str] = ()) -> bool:
    """The SentencePiece file of the source with further tokens; whether the source has one.

    Without it, the settings alone are written, so that the file can be put beside them later. Raises TpoError when it
    is no SentencePiece file, or when its tokens are not as many as the rows of the embedding.
    """
    file = source / MODEL_FILE
    if not file.exists():
        _write(folder / SETTINGS_FILE, {"added": list(added), "bos_per_fragment": True})
        return False
    try:
        tokenizer = FragmentTokenizer(file.read_bytes(), added=added)
    except (RuntimeError, OSError) as error:
        raise TpoError(f"{file} is no SentencePiece file: download it again") from error
    if len(tokenizer) != rows:
        raise TpoError(
            f"{file} has {len(tokenizer) - len(added)} tokens, and {len(added)} are added, but the embedding has "
            f"{rows} rows: give the tokenizer of this model"
        )
    tokenizer.save_pretrained(folder)
    return True


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
