import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError


def thing(*chains, box=None, scene=0):
    names = "".join(f"<name>{chain}</name>" for chain in chains)
    if box is None:
        return f"<object>{names}<scene>{scene}</scene><nobndbox>{1 - scene}</nobndbox></object>"
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object>{names}<bndbox>{corners}</bndbox></object>"


SIZE = "<size><width>500</width><height>375</height><depth>3</depth></size>"
THINGS = [
    thing(100, box=(230, 227, 311, 324)),
    thing(101, box=(371, 188, 441, 218)),
    thing(100, 104, box=(5, 5, 60, 70)),
    thing(102, scene=1),
    thing(103),
]
LINES = [
    "[/EN#100/people Two men] in [/EN#101/clothing blue shirts] near [/EN#102/scene a field] .",
    "[/EN#104/people/other A man] holds [/EN#103/other an object] .",
    "A sentence without phrases .",
    "[/EN#0/notvisual It] is [/EN#101/clothing a shirt] .",
]


def write(root, image="9001", lines=LINES, things=THINGS, xml=None):
    for folder in ("Sentences", "Annotations"):
        (root / folder).mkdir(exist_ok=True)
    (root / "Sentences" / f"{image}.txt").write_text("\n".join(lines) + "\n")
    text = f"<annotation>{SIZE}{''.join(things)}</annotation>" if xml is None else xml
    (root / "Annotations" / f"{image}.xml").write_text(text)


def read(root, images=("9001",), split="test", **options):
    (root / f"{split}.txt").write_text("\n".join(images) + "\n")
    return list(READERS["flickr30k_entities"].read(str(root), split, options))


def test_one_sample_a_phrase_with_any_of_its_boxes(tmp_path):
    write(tmp_path)
    men, shirts, man, shirt = read(tmp_path)
    assert [s.sample_id.rpartition("/")[2] for s in (men, shirts, man, shirt)] == [
        "9001-0-0",
        "9001-0-1",
        "9001-1-0",
        "9001-3-1",
    ]
    assert (men.task, men.media[0].uri) == ("phrase_box", "flickr30k-images/9001.jpg")
    assert (men.media[0].width, men.media[0].height) == (500, 375)
    assert [target.box for target in men.targets] == [(230, 227, 311, 324), (5, 5, 60, 70)]
    assert {(t.set_rule, t.group, t.label) for t in men.targets} == {("any_of", 0, "Two men")}
    assert men.turns[1].target_refs == (0, 1)
    assert (man.targets[0].set_rule, man.targets[0].box) == ("single", (5.0, 5.0, 60.0, 70.0))
    assert (shirts.provenance.row, shirt.provenance.row) == (0, 3)


def test_raw_says_where_the_phrase_stands_and_what_it_is(tmp_path):
    write(tmp_path)
    samples = read(tmp_path)
    raw = json.loads(samples[1].provenance.raw)
    assert raw["sentence"] == "Two men in blue shirts near a field ."
    start, end = raw["phrase_span"]
    assert raw["sentence"][start:end] == "blue shirts"
    assert (raw["chain"], raw["types"], raw["bndboxes"]) == ("101", ["clothing"], [[371, 188, 441, 218]])
    assert json.loads(samples[2].provenance.raw)["types"] == ["people", "other"]


def test_the_origin_is_an_option(tmp_path):
    write(tmp_path)
    sample = read(tmp_path, origin="1")[1]
    assert (sample.targets[0].box, sample.provenance.origin) == ((370.0, 187.0, 440.0, 217.0), 1)


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    write(tmp_path, "1", ["[/EN#7/people A] [/EN#8/people B] [/EN#9/other C]"], [thing(8, box=(1, 1, 9, 9)), thing(9)])
    write(
        tmp_path,
        "2",
        ["[/EN#7/people A]", "[/EN#8/people B]"],
        [thing(7, box=(5, 5, 5, 9)), thing(8, box=(1, 1, 2, 2))],
    )
    write(tmp_path, "3", ["[/EN#7/people A]"], [thing(7, box=(500, 5, 510, 9))])
    write(tmp_path, "4", ["[/EN#7/people A]"], [thing(7, box=("x", 5, 510, 9))])
    write(tmp_path, "5", ["[/EN#7/people A]"], xml="<annotation><size>")
    write(tmp_path, "6", ["[/EN#7/people A]"], xml="<annotation></annotation>")
    write(tmp_path, "7", ["[/EN#7/people A]"], ["<object><name>7</name><bndbox><xmin>1</xmin></bndbox></object>"])
    items = read(tmp_path, [*"1234567", "8", "", "1"])
    assert {(item.uri, item.reason) for item in items if isinstance(item, Reject)} == {
        ("Sentences/1.txt:1", "no_labels"),
        ("Sentences/2.txt:1", "box_empty"),
        ("Sentences/3.txt:1", "box_outside_image"),
        ("test.txt:4", "bad_record"),
        ("test.txt:5", "bad_record"),
        ("test.txt:6", "bad_record"),
        ("test.txt:7", "bad_record"),
        ("test.txt:8", "no_labels"),
    }
    kept = [item.provenance.native_id for item in items if not isinstance(item, Reject)]
    assert kept == ["1-0-1", "2-1-0", "1-0-1"]


def test_images_are_read_one_after_another(tmp_path):
    write(tmp_path)
    (tmp_path / "test.txt").write_text("9001\n" * 2)
    items = READERS["flickr30k_entities"].read(str(tmp_path), "test", {})
    assert next(items).targets[0].label == "Two men"
    (tmp_path / "Annotations/9001.xml").write_text("broken")
    assert [type(item) for item in items][-1] is Reject


def test_an_unknown_split_names_its_list(tmp_path):
    write(tmp_path)
    (tmp_path / "test.txt").touch()
    with pytest.raises(TpoError, match=r"val\.txt"):
        list(READERS["flickr30k_entities"].read(str(tmp_path), "val", {}))
