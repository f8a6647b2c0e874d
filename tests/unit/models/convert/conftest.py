"""A tiny published checkpoint on disk, and a folder that has its sizes."""

from pathlib import Path

import pytest
from torch import Tensor

from tests.unit.models.convert.published_files import (
    random_tensors,
    sentencepiece_model,
    tiny_sizes,
    write_checkpoint,
    write_settings,
)
from tpo_core.models.convert.layout import Layout


@pytest.fixture(scope="session")
def layout() -> Layout:
    return Layout(tiny_sizes())


@pytest.fixture(scope="session")
def tensors(layout: Layout) -> dict[str, Tensor]:
    return random_tensors(layout)


@pytest.fixture(scope="session")
def like(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_settings(tmp_path_factory.mktemp("like") / "model", tiny_sizes()))


@pytest.fixture
def published(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "published", tensors)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    return folder
