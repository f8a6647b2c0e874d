"""Readers of native dataset layouts, by name. A new dataset is one module and one line here."""

from tpo_core.config.names import nearest
from tpo_core.config.schema import SourceConfig
from tpo_core.data.readers import (
    activitynet_captions,
    as_v2,
    charades_sta,
    coin,
    davis17,
    didemo,
    flickr30k_entities,
    got10k,
    hirest,
    jsonl,
    lasot,
    llava,
    mevis,
    mlvu,
    mot,
    mvbench,
    next_gqa,
    nlq,
    queryd,
    qvhighlights,
    ref_davis17,
    ref_youtube_vos,
    refcoco,
    refcoco_mdetr,
    sa_v,
    seed_bench,
    tacos,
    timeit,
    trackingnet,
    video_mme,
    videochat2_it,
    visual_genome,
    vitt,
    youcook2,
    youtube_vos,
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
        mot,
        lasot,
        trackingnet,
        sa_v,
        davis17,
        ref_davis17,
        youtube_vos,
        ref_youtube_vos,
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
