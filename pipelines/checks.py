"""check_sources(recipe), check_roots(data): mistakes about data that a recipe's schema cannot see, before any work."""

from tpo_core.config.schema import DataConfig, Recipe
from tpo_core.data.readers import reader_of
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, is_local, join


def check_sources(recipe: Recipe) -> None:
    """Readers, their options, and that there is something to evaluate; opens no file. TpoError for the first mistake.

    The schema leaves readers to the data room, which is above it.
    """
    for source in recipe.data.sources:
        reader = reader_of(source)
        try:
            reader.complete(source.options)
        except TpoError as error:
            raise TpoError(f"source {source.name!r}: {error}") from None
    fed = sorted({source.part for source in recipe.data.sources})
    if not set(recipe.evaluation.parts) & set(fed):
        raise TpoError(
            f"no source feeds a part of evaluation.parts ({', '.join(recipe.evaluation.parts)}): data.sources feed"
            f" {', '.join(fed)}; name one of those, or add a source"
        )


def check_roots(data: DataConfig) -> None:
    """Local roots of data sets that are to be read; TpoError for the first that is not there.

    Left out: what lies below the generator's output, which is not written yet, and remote roots, which may be reached
    from the cluster only.
    """
    for source in data.sources:
        if data.root is None and "://" not in source.root and not source.root.startswith("/"):
            continue
        place = join(data.root or "", source.root)
        if is_local(place) and not exists(place):
            raise TpoError(
                f"source {source.name!r}: there is no {place}: check data.root and data.sources.{source.name}.root"
            )
