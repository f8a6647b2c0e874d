import pytest

from tests.unit.data.readers.pngs import left_edges, save, squares
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import answer_targets, validate
from tpo_core.errors import TpoError

FILES = {
    "a1-first": "Davis17_annot1.txt",
    "a1-full": "Davis17_annot1_full_video.txt",
    "a2-first": "Davis17_annot2.txt",
    "a2-full": "Davis17_annot2_full_video.txt",
}


def write(root, train=(), val=("dog",), **texts):
    """`texts`: run with _ for - -> bytes of its file; the others are empty."""
    for split, names in (("train", train), ("val", val)):
        path = root / f"ImageSets/2017/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    (root / "davis_text_annotations").mkdir(exist_ok=True)
    for run, name in FILES.items():
        (root / "davis_text_annotations" / name).write_bytes(texts.get(run.replace("-", "_"), b""))


def masks(root, name, *frames):
    for k, placed in enumerate(frames):
        save(root / f"Annotations_unsupervised/480p/{name}/{k:05d}.png", squares(*placed))


def read(root, split="val", **options):
    return list(READERS["ref_davis17"].read(str(root), split, options))


def test_four_expressions_an_object_in_the_order_of_the_runs(tmp_path):
    texts = {run.replace("-", "_"): f'dog 1 "a {run} dog"\ncat 1 "a cat"\n'.encode() for run in FILES}
    write(tmp_path, train=["cat"], **texts)
    masks(tmp_path, "dog", [(1, 0)], [(1, 1), (2, 9)])
    samples = read(tmp_path)
    assert [sample.sample_id for sample in samples] == [f"ref_davis17/val/dog-1-{run}" for run in FILES]
    assert [answer_targets(sample)[0].annotator for sample in samples] == [1, 1, 2, 2]
    assert [answer_targets(sample)[0].label for sample in samples] == [f"a {run} dog" for run in FILES]
    assert {sample.task for sample in samples} == {"mask"}
    assert left_edges(samples[0].targets[0].track) == [(0, 0.0), (1, 1.0)]
    assert [sample.provenance.native_id for sample in read(tmp_path, run="a2-first")] == ["dog-1-a2-first"]
    assert (samples[1].provenance.source_file, samples[1].provenance.row) == (
        "davis_text_annotations/Davis17_annot1_full_video.txt",
        0,
    )


def test_annotator_two_is_latin_1(tmp_path):
    write(tmp_path, a1_first='dog 1 "caf\u00e9"\n'.encode(), a2_full='dog 1 "caf\u00e9"\n'.encode("latin-1"))
    masks(tmp_path, "dog", [(1, 0)], [(1, 0)])
    assert [sample.targets[0].label for sample in read(tmp_path)] == ["caf\u00e9"] * 2


def test_misspelt_sequences_are_mended_and_told(tmp_path):
    write(tmp_path, val=["classic-car", "dogs-scale", "motorbike"], a1_first=b'clasic-car 1 "a car"\ndog-scale 1 "b"\n',
          a1_full=b'motor-bike 1 "c"\n')  # fmt: skip
    for name in ("classic-car", "dogs-scale", "motorbike"):
        masks(tmp_path, name, [(1, 0)], [(1, 0)])
    samples = read(tmp_path)
    assert [sample.provenance.native_id for sample in samples] == [
        "classic-car-1-a1-first",
        "dogs-scale-1-a1-first",
        "motorbike-1-a1-full",
    ]
    assert samples[0].provenance.flags == ("sequence_mended",)
    assert samples[0].provenance.raw == '{"sequence": "clasic-car"}'


def test_void_is_kept_beside_the_object(tmp_path):
    write(tmp_path, a1_first=b'dog 1 "a dog"\n')
    masks(tmp_path, "dog", [(1, 0), (255, 9)], [(1, 0)])
    (sample,) = read(tmp_path)
    assert [target.label for target in sample.targets] == ["a dog", "void"]
    assert answer_targets(sample) == sample.targets[:1]
    assert validate(sample) == []


def test_the_planted_bad_lines_are_rejected_and_no_other(tmp_path):
    lines = [
        ('dog 1 "a dog"', None),
        ("dog one dog", "bad_record"),
        ('dog 1 ""', "bad_record"),
        ('dgo 1 "a dog"', "no_labels"),
        ('dog 7 "a cat"', "track_never_visible"),
        ('gone 1 "a dog"', "no_labels"),
        ('damaged 1 "a dog"', "bad_record"),
        ('cat 1 "a cat"', "of another split"),
        ("", "blank"),
        ('dog 2 "a "big" cat"', None),
    ]
    text = "".join(f"{line}\n" for line, _ in lines).encode()
    write(tmp_path, train=["cat"], val=["dog", "gone", "damaged"], a1_first=text)
    masks(tmp_path, "dog", [(1, 0), (2, 9)], [(1, 0)])
    masks(tmp_path, "damaged", [(1, 0)], [(1, 0)])
    (tmp_path / "Annotations_unsupervised/480p/damaged/00001.png").write_bytes(b"")
    items = read(tmp_path)
    rejects = {int(item.uri.rpartition(":")[2]): item.reason for item in items if isinstance(item, Reject)}
    assert rejects == {
        row + 1: why for row, (_, why) in enumerate(lines) if why not in (None, "of another split", "blank")
    }
    kept = [item.targets[0].label for item in items if not isinstance(item, Reject)]
    assert kept == ["a dog", 'a "big" cat']


def test_a_missing_text_file_is_told(tmp_path):
    write(tmp_path)
    (tmp_path / "davis_text_annotations/Davis17_annot2.txt").unlink()
    with pytest.raises(TpoError, match=r"Davis17_annot2\.txt"):
        read(tmp_path)
    assert read(tmp_path, run="a1-first") == []
