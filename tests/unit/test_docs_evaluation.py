"""The examples of docs/evaluation.md can be typed as they stand."""

import re
import shlex
from pathlib import Path

import yaml

from pipelines.evaluate import parser_of
from tpo_core.evaluation.suite import Suite, load_suite

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The arguments of every quoted call of pipelines/evaluate.py, without what is optional."""
    blocks = re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    joined = [re.sub(r"\[[^\]]*\]", "", block).replace("\n", " ") for block in blocks]
    return [block.partition("pipelines/evaluate.py")[2] for block in joined if "pipelines/evaluate.py" in block]


def test_the_quoted_commands_are_known():
    assert len(commands()) == 3
    for arguments in commands():
        args = parser_of().parse_intermixed_args(shlex.split(arguments))
        assert load_suite(args.suite).entries


def test_the_suite_of_ones_own_is_valid():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    suite = Suite.model_validate({"name": "mine", **yaml.safe_load(text)})
    assert suite.entries[0].published.videochat_tpo


def test_the_files_that_it_names_are_those_that_are_written():
    source = (ROOT / "tpo_core/evaluation/bench.py").read_text()
    for name in ("result.json", "rows.jsonl", "native/", "native_control/", "answers/"):
        assert f"ENTRY/{name}" in TEXT
        assert name.rstrip("/") in source
