"""What the documents promise is there: commands, folders, the example of a user's own data."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tpo_core.config.schema import DataConfig
from tpo_core.data.inspect import _parser
from tpo_core.data.readers import READERS
from tpo_core.data.sample import Sample

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?<![\w/.-])python(?: -u)? +(-m +[\w.]+|[\w./-]+\.py)")
LINK = re.compile(r"\]\(([^)#\s]+)")


def blocks(document: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The script or `-m module` of every python command."""
    return [re.sub(r"-m +", "-m ", found) for found in COMMAND.findall(text)]


def runnable(command: str) -> bool:
    if command.startswith("-m "):
        return importlib.util.find_spec(command.removeprefix("-m ")) is not None
    return (ROOT / command).is_file()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_command_is_there(document):
    found = commands(document.read_text(encoding="utf-8"))
    assert [command for command in found if not runnable(command)] == []


def test_the_check_of_commands_sees_them():
    text = (
        "`python pipelines/gone.py --x`\n```\nray job submit -- python -m tpo_core.gone a\n.venv/bin/python x.py\n```"
    )
    assert commands(text) == ["pipelines/gone.py", "-m tpo_core.gone"]
    assert not runnable("pipelines/gone.py")
    assert not runnable("-m tpo_core.gone")
    assert commands((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_is_there(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_house(document):
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_map_of_the_house_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.partition("## The map of the house")[2].split("```")[1].strip().splitlines()
    places = [line.split()[0] for line in lines]
    assert [place for place in places if not (ROOT / place).is_dir()] == []
    rooms = {path.parent.name for path in (ROOT / "tpo_core").glob("*/__init__.py")}
    assert rooms <= {place.rpartition("/")[2] for place in places}
    scripts = lines[0].partition("entry points:")[2].partition(";")[0].split(",")
    assert [name for name in scripts if not (ROOT / "pipelines" / f"{name.strip()}.py").is_file()] == []


def test_the_example_of_own_data_is_read_without_a_reject(tmp_path):
    document = ROOT / "docs" / "own_data.md"
    (lines,) = blocks(document, "json")
    (tmp_path / "train.jsonl").write_text(lines)
    items = list(READERS["jsonl"].read(str(tmp_path), "train", {}))
    assert [type(item) for item in items] == [Sample] * len(lines.splitlines())
    assert [json.loads(line)["sample_id"] for line in lines.splitlines()] == [item.sample_id for item in items]


def test_the_recipe_of_own_data_is_valid():
    (text,) = blocks(ROOT / "docs" / "own_data.md", "yaml")
    data = DataConfig.model_validate(yaml.safe_load(text)["data"])
    assert all(source.reader in READERS for source in data.sources)


def test_options_of_the_quoted_commands_are_known():
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    quoted = re.findall(r"^python -m tpo_core\.data\.inspect (.*)$", text, re.MULTILINE)
    assert quoted
    for arguments in quoted:
        _parser().parse_args(shlex.split(arguments, comments=True))


def test_the_table_of_formats_has_every_reader_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| `(\w+)` \|$", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
    assert {name: (summary, split) for name, summary, split in rows} == {
        name: (reader.summary, reader.default_split) for name, reader in READERS.items()
    }
