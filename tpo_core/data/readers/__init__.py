"""Readers of native dataset layouts, by name. A new dataset is one module and one line here."""

from tpo_core.config.names import nearest
from tpo_core.config.schema import SourceConfig
from tpo_core.data.readers import (
    activitynet_captions,
    as_v2,
    charades_sta,
    coin,
    didemo,
    flickr30k_entities,
    got10k,
    hirest,
    jsonl,
    llava,
    mevis,
    mlvu,
    mot15,
    mvbench,
    next_gqa,
    nlq,
    queryd,
    qvhighlights,
    refcoco,
    refcoco_mdetr,
    seed_bench,
    tacos,
    timeit,
    video_mme,
    videochat2_it,
    visual_genome,
    vitt,
    youcook2,
)
from tpo_core.data.readers.base import Reader, Reject
from tpo_core.errors import TpoError

READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (
        refcoco,
        charades_sta,
        qvhighlights,
        didemo,
        activitynet_captions,
        tacos,
        hirest,
        mevis,
        got10k,
        videochat2_it,
        mot15,
        refcoco_mdetr,
        mvbench,
        video_mme,
        mlvu,
        seed_bench,
        next_gqa,
        flickr30k_entities,
        visual_genome,
        llava,
        as_v2,
        coin,
        youcook2,
        vitt,
        nlq,
        timeit,
        queryd,
        jsonl,
    )
}


def reader_of(source: SourceConfig) -> Reader:
    """The reader that a source names. TpoError when there is none of that name."""
    if source.reader not in READERS:
        raise TpoError(f"source {source.name!r}: no reader {source.reader!r}; {nearest(source.reader, READERS)}")
    return READERS[source.reader]


__all__ = ["READERS", "Reader", "Reject", "reader_of"]
