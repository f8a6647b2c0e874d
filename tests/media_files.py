"""Media of a shard set, written without a decoder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tpo_core.data.shards import write_media_index, write_media_shard


def write_media(root: Path, rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One file of `media/` and the index, as records for the manifest; what a row leaves out is None."""
    plain = {"features": None, "features_dim": None}
    full = [plain | {"media_duration_s": row["duration_s"]} | row for row in rows]
    file = write_media_shard(root / "media/00000.arrow", full)
    index = write_media_index(root, ((row["uri"], 0, number) for number, row in enumerate(full)))
    return {"media/00000.arrow": file, **index}
