"""Which samples and media a recipe reads: counted in a shard set, or as published; and what decoding them costs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tpo_core.config.names import require_known
from tpo_core.config.schema import DataConfig, FramesConfig, PhaseConfig, SourceConfig
from tpo_core.config.stage import KINDS
from tpo_core.data.readers import reader_of
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import DATA_SETS, VIDEO_FPS, DataSet
from tpo_core.train.build import PART

MPX = 1e6
FORM = "NAME=KIND,SAMPLES[,MEDIA[,SECONDS[,HEIGHT]]]"


@dataclass(frozen=True)
class Decoding:
    """Of the media of part train. core_hours: CPU time; stored_bytes: of the frames in shards."""

    media: int
    core_hours: float
    stored_bytes: float


class Pool:
    """The data sets of part train by name, and the sources among them of which nothing is known."""

    def __init__(self, data: DataConfig, given: Mapping[str, DataSet], shards: ShardSet | None) -> None:
        """given: data sets that take the place of published ones, or join them. shards: their true counts."""
        self.shards, self.rendered = shards, data.generator.train_clips if data.generator else None
        self.data_sets: dict[str, DataSet] = {}
        self.unknown: list[str] = []
        for source in data.sources:
            name = name_of(source)
            if source.part == PART and self.rendered is None and name not in given:
                if name in DATA_SETS:
                    self.data_sets[name] = limited(DATA_SETS[name], source)
                else:
                    self.unknown.append(name)
        self.data_sets |= given

    def counts(self, phase: PhaseConfig, where: str) -> dict[str, int]:
        """Samples by kind. TpoError for a phase of epochs with a data set of unknown size."""
        if self.shards is not None:
            return dict(self.shards.counts(PART, phase.datasets))
        if self.rendered is not None:
            return dict.fromkeys(phase.mixture, self.rendered)
        lacking = [name for name in phase.datasets or self.unknown if name not in self.data_sets]
        if lacking and phase.epochs is not None:
            raise TpoError(
                f"phase {where} counts epochs over {lacking[0]!r}, whose size is not known: give it with --data-set"
                f" {lacking[0]}={FORM.partition('=')[2]}, or count with --shards URI"
            )
        found: Counter[str] = Counter()
        for each in self._of(phase):
            found[each.kind] += each.samples
        if phase.steps is not None:  # which do not depend on them
            return {kind: found[kind] or 1 for kind in phase.mixture}
        return dict(found)

    def frames_of(self, phase: PhaseConfig, kind: str, n_frames: int) -> dict[int, float]:
        """Frames of a sample, and the share of the samples of a kind that show so many. Of data sets that are not known
        regions are taken to lie in images, and all else in videos."""
        samples: Counter[int] = Counter()
        for each in self._of(phase):
            if each.kind == kind:
                samples[n_frames if each.is_video else 1] += each.samples
        total = sum(samples.values())
        if not total:
            return {1 if kind == "region" else n_frames: 1.0}
        return {frames: count / total for frames, count in samples.items()}

    def decoding(self, frames: FramesConfig, assumed: Assumptions) -> Decoding:
        """All media of the known data sets, each once. A wanted frame of a video costs half the way between two
        keyframes, all together no more than the whole video."""
        core_s = stored_px = 0.0
        for each in self.data_sets.values():
            kept = frames.n_frames if each.is_video else 1
            out_px = assumed.aspect * min(frames.short_side_px, each.height_px) ** 2
            in_px = assumed.aspect * each.height_px**2
            walked = min(each.length_s * VIDEO_FPS, kept * assumed.keyframe_gap_frames / 2) if each.is_video else 0.0
            read_s = walked * in_px / MPX / assumed.decode_mpx_per_core_s
            if not each.is_video:  # reading a JPEG takes about as long as writing it
                read_s = in_px / MPX / assumed.jpeg_mpx_per_core_s
            core_s += each.media * (read_s + kept * out_px / MPX / assumed.jpeg_mpx_per_core_s)
            stored_px += each.media * kept * out_px
        media = sum(each.media for each in self.data_sets.values())
        return Decoding(media, core_s / 3600, stored_px * assumed.jpeg_bytes_per_px)

    def _of(self, phase: PhaseConfig) -> list[DataSet]:
        names = phase.datasets or list(self.data_sets)
        return [self.data_sets[name] for name in names if name in self.data_sets]


def name_of(source: SourceConfig) -> str:
    """The data set that samples of a source name, as far as the recipe tells."""
    reader = reader_of(source)
    return reader.complete(source.options).get("dataset", reader.name)


def limited(data_set: DataSet, source: SourceConfig) -> DataSet:
    """What a source keeps of a data set."""
    samples = -(-data_set.samples // source.step)
    samples = samples if source.limit is None else min(samples, source.limit)
    return replace(data_set, samples=samples, media=min(data_set.media, samples))


def parse_data_sets(texts: Iterable[str]) -> dict[str, DataSet]:
    """Data sets written as FORM. TpoError for anything else."""
    found = {}
    for text in texts:
        name, _, row = text.partition("=")
        kind, *numbers = row.split(",")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 4 or min(values) < 0 or values[0] < 1:
            raise TpoError(f"--data-set {text!r}: write it as {FORM}, for example mine=temporal,12000,3000,60,720")
        require_known_kind(text, kind)
        samples, media, length_s, height_px = (
            values + [values[0], DataSet.length_s, DataSet.height_px][len(values) - 1 :]
        )
        found[name] = DataSet(kind, int(samples), int(media), length_s, int(height_px))
    return found


def require_known_kind(text: str, kind: str) -> None:
    try:
        require_known("kind", [kind], KINDS)
    except ValueError as error:
        raise TpoError(f"--data-set {text!r}: {error}") from None
