"""Suites of benchmarks as data: which data sets are asked, how, by which official metric, and what was published.

A suite is a YAML file of entries, in tpo_core/evaluation/suites or anywhere. Fields built with `execution` say where
the data set lies, which of it is scored and how; the others determine what a model answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tpo_core.config.base import Config, drop_nulls, execution
from tpo_core.config.load import read_yaml, validated
from tpo_core.config.names import nearest, require_known
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError
from tpo_core.metrics.registry import METRICS, scorer

SUITES = Path(__file__).with_name("suites")
Texts = Annotated[dict[str, str], BeforeValidator(drop_nulls)]
Task = Literal["region", "moment", "mask", "track", "qa", "choice", "grounded_choice"]


class Published(Config):
    """Numbers of others, under the names that the metric gives to its own."""

    source: str = Field(min_length=1, description="where they are printed: paper and table")
    videochat2: dict[str, float] = Field(default_factory=dict, description="of VideoChat2")
    videochat_tpo: dict[str, float] = Field(default_factory=dict, description="of VideoChat-TPO")
    note: str = Field(default="", description="a sentence below the entry: what is printed but not measured here")


class Entry(Config):
    """One benchmark, or one split of it."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    name: str = execution(pattern=r"^[a-z0-9_+.-]+$", description="name in --only, and of the folder of its results")
    title: str = execution(min_length=1, description="as reports call it")
    task: Task = Field(description="what is asked for")
    reader: str = Field(description="reader of the native format (tpo_core/data/readers)")
    root: str = execution(min_length=1, description="where the data set lies, below the data root, or a path or URI")
    split: str = Field(min_length=1, description="split as the data set names it")
    options: Texts = Field(default_factory=dict, description="options of the reader")
    where: Texts = execution(default_factory=dict, description="only samples whose native fields have these values")
    prompt: Literal["as_trained", "best_option", "letter"] = Field(
        default="as_trained",
        description="as_trained: the question of the sample; best_option: options as VideoChat2's evaluation puts them;"
        " letter: options and the demand for a letter",
    )
    frames: int = Field(default=16, ge=1, description="frames of a video that the language model sees")
    choice: Literal["midpoints", "mvbench"] = Field(default="midpoints", description="which frames these are")
    every_frame: bool = Field(
        default=False, description="store every frame, for a mask head that follows objects through all of them"
    )
    short_side_px: int | None = Field(
        default=None, ge=16, description="short side of a stored frame, pixels; null: that of the recipe"
    )
    subtitles: str | None = Field(
        default=None, description="path of the .srt of a video below the root, with {name}; null: none are shown"
    )
    metric: str = execution(description="official metric, see python -m tpo_core.metrics.score --help")
    implementation: str = execution(description="which official code of that metric")
    metric_options: Texts = execution(
        default_factory=dict, description="options of the metric; {root} stands for that of the data set"
    )
    headline: list[str] = execution(
        default_factory=list, description="numbers worth a line, by their official names; empty: the published ones"
    )
    truth: str | None = execution(
        None, description="the official truth, below the root; null: written from the samples that were asked"
    )
    control: bool = execution(False, description="whether plain SAM2 follows the true box too")
    published: Published | None = execution(None, description="published numbers")

    @model_validator(mode="after")
    def _fits_together(self) -> Entry:
        require_known("reader", [self.reader], READERS)
        require_known("metric", [self.metric], METRICS)
        require_known(f"implementation of {self.metric}", [self.implementation], scorer(self.metric).implementations)
        require_known(
            f"option of {self.metric}",
            list(self.metric_options),
            [option.name for option in scorer(self.metric).options],
        )
        if (self.prompt == "as_trained") == (self.task in ("choice", "grounded_choice")):
            raise ValueError(f"prompt {self.prompt} is not for task {self.task}: options need best_option or letter")
        if self.control and self.task not in ("mask", "track"):
            raise ValueError(f"control: plain SAM2 does no {self.task}; leave it out")
        return self


class Suite(Config):
    """Benchmarks that are asked together."""

    name: str = execution(min_length=1, description="name of the suite")
    entries: list[Entry] = Field(min_length=1, description="benchmarks, in the order in which they are asked")

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [entry.name for entry in self.entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"entries: the name {twice!r} is used twice; names must differ")
        return self

    def only(self, names: list[str]) -> Suite:
        """The suite with these entries alone, or all if none is named. TpoError for a name that none has."""
        known = [entry.name for entry in self.entries]
        for name in names:
            if name not in known:
                raise TpoError(f"suite {self.name} has no entry {name!r}; {nearest(name, known)}")
        return self.model_copy(update={"entries": [e for e in self.entries if not names or e.name in names]})


def suite_names() -> list[str]:
    """The suites that come with the platform."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(name_or_path: str) -> Suite:
    """A suite by name, or the YAML file of that path.

    TpoError, one line, for a suite that is not there and for what is wrong in it.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path, known = Path(name_or_path), ": there is no such file"
    else:
        path, known = SUITES / f"{name_or_path}.yaml", f"; {nearest(name_or_path, suite_names())}"
    if not path.is_file():
        raise TpoError(f"no suite {name_or_path!r}{known}")
    return validated(Suite, {"name": path.stem, **read_yaml(path, "a suite")}, f"suite {path.stem}", "the suite")
