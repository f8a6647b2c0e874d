"""from pipelines.usage import RECIPE, OVERRIDES, STATUSES, echo: what several entry points say alike."""

RECIPE = "name of a recipe in pipelines/recipes, or path of a YAML file"
OVERRIDES = (
    "change of the recipe, as train.workers=2; the value is YAML; @FILE is a YAML file that maps paths to values. A"
    " list item goes by its name or index (data.sources.mine.limit=100), null takes an entry out of a table"
    " (stages.multitask.lr.connector=null), text that YAML would take for something else is quoted twice"
    " (data.sources.mine.options.masks=\"'no'\")"
)
STATUSES = (
    "exit status: 0 done, 1 failed (with a traceback, or a line that says why), 2 a user's mistake (one line),"
    " 130 or 143 interrupted"
)


def echo(line: str) -> None:
    """Progress goes out at once: a job's log is read while it runs."""
    print(line, flush=True)
