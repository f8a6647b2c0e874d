"""Readers of native dataset layouts, by name. A new dataset is one module and one line here."""

from tpo_core.data.readers import charades_sta, got10k, jsonl, mevis, mot15, qvhighlights, refcoco, videochat2_it
from tpo_core.data.readers.base import Reader, Reject

READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (
        refcoco,
        charades_sta,
        qvhighlights,
        mevis,
        got10k,
        videochat2_it,
        mot15,
        jsonl,
    )
}

__all__ = ["READERS", "Reader", "Reject"]
