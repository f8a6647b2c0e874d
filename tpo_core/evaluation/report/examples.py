"""Samples with their frames out of a shard set: what the cards of a report on its parts are drawn from."""

from __future__ import annotations

from tpo_core.data.example import Example, load_example
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.report.cards import ExampleOf


def examples_of(shards: ShardSet) -> ExampleOf:
    """A function that gives the sample of an entry "<part>/<task>" by its id; KeyError when the part has none such."""

    def example_of(entry: str, sample_id: str) -> Example:
        table = shards.samples(entry.split("/", 1)[0])
        return load_example(shards, table[table.numbers[sample_id]])

    return example_of
