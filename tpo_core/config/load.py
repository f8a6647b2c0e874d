"""From a recipe's name and overrides to a validated Recipe, or to one line that says what is wrong.

An override is `a.b.c=value`, the value in YAML. A list item goes by its `name` or its index, as in
`stages.multitask.phases.mix.steps=10`; `null` takes an entry out of a table: `stages.multitask.lr.connector=null`.
`@best.yaml` stands for what the file says, which maps such paths to values.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tpo_core.config.names import nearest
from tpo_core.config.schema import Recipe, fill_stage_defaults
from tpo_core.errors import TpoError

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
Model = TypeVar("Model", bound=BaseModel)
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe `pipelines/recipes/<name>.yaml`, or the YAML file of that path, with `overrides` applied in order.

    Raises TpoError, one line, for a recipe that is not there, an unknown key (with the nearest known one), a missing
    or a bad value (with its path, the allowed range and the unit).
    """
    path = _find(name_or_path)
    raw = {"name": path.stem, **read_yaml(path, "a recipe")}
    changes = [change for text in overrides for change in _changes(text)]
    # The default learning rates of a stage depend on its heads, so rates are changed after everything else.
    for keys, value in changes:
        if "lr" not in keys[:-1]:
            raw = _set(raw, keys, value)
    raw = fill_stage_defaults(raw)
    for keys, value in changes:
        if "lr" in keys[:-1]:
            raw = _set(raw, keys, value)
    return validated(Recipe, raw, f"recipe {path.stem}", "the recipe")


def validated(model: type[Model], raw: dict[str, Any], name: str, what: str) -> Model:
    """`raw` as the section `model`. TpoError, one line that opens with `name`, for what is wrong with it; `what` is
    what the whole is called in there."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise TpoError(f"{name}: {_one_line(error, raw, model, what)}") from None


def _find(name_or_path: str) -> Path:
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path, known = Path(name_or_path), ""
    else:
        path = RECIPES / f"{name_or_path}.yaml"
        known = f"; {nearest(name_or_path, _names())} all recipes: {', '.join(_names()) or 'none'}"
    if not path.is_file():
        raise TpoError(f"no recipe {name_or_path!r}{known or ': there is no such file'}")
    return path


def _names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file. TpoError for anything else; `what` is what the file should be, as in "a recipe"."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise TpoError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason}): save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise TpoError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise TpoError(f"{path}: {what} is a YAML mapping, this is {_kind(raw)}")
    return raw


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys and says nothing; a recipe must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _changes(text: str) -> Iterator[tuple[list[str], Any]]:
    """What an override changes: paths and values."""
    if not text.startswith("@"):
        yield _parse(text)
        return
    path = Path(text[1:])
    if not path.is_file():
        raise TpoError(f"override {text!r}: there is no file {path}: write @ and the path of a YAML file of overrides")
    for key, value in read_yaml(path, "a file of overrides").items():
        if not isinstance(key, str) or not all(key.split(".")):
            raise TpoError(f"{path}: {key!r} is no dotted path: write it as stages.multitask.lr.lora: 1.0e-5")
        yield key.split("."), value


def _parse(text: str) -> tuple[list[str], Any]:
    path, sign, value = text.partition("=")
    if not sign or not all(path.split(".")):
        raise TpoError(f"override {text!r}: write it as key.path=value, for example train.workers=2")
    try:
        return path.split("."), yaml.safe_load(value)
    except yaml.YAMLError:
        raise TpoError(f"override {text!r}: {value!r} is not valid YAML; quote it") from None


def _set(node: Any, keys: list[str], value: Any, where: str = "the recipe") -> Any:
    """A copy of `node` with `value` at `keys`; `where` is the path so far, for messages."""
    if not keys:
        return value
    key, path = keys[0], keys[0] if where == "the recipe" else f"{where}.{keys[0]}"
    if isinstance(node, list):
        index = _index(node, key, where)
        return [_set(item, keys[1:], value, path) if i == index else item for i, item in enumerate(node)]
    if node is None or isinstance(node, dict):
        table = node or {}
        return {**table, key: _set(table.get(key), keys[1:], value, path)}
    raise TpoError(f"override {where}.{'.'.join(keys)}: {where} is {_kind(node)}, it has no {key!r}")


def _index(items: list[Any], key: str, where: str) -> int:
    names = [item["name"] if isinstance(item, dict) and "name" in item else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = [name for name in names if name is not None] or range(len(items))
    raise TpoError(f"unknown item {key!r} in {where}; {nearest(key, map(str, known))}")


def _kind(value: Any) -> str:
    return {list: "a list", dict: "a mapping", str: "text", type(None): "empty"}.get(type(value), "a single value")


def _one_line(error: ValidationError, raw: dict[str, Any], root: type[BaseModel], what: str) -> str:
    """The first problem, and how many more there are."""
    first, *others = error.errors(include_url=False)
    more = f" (and {len(others)} more)" if others else ""
    *parents, last = first["loc"] or ("",)
    where = ".".join(_named(parents, raw))
    path = ".".join(_named(first["loc"], raw))
    field, model = _schema_at(first["loc"], root)
    if first["type"] == "extra_forbidden":
        return f"unknown key {last!r} in {where or what}; {nearest(str(last), model.model_fields)}{more}"
    about = f" ({field.description})" if field and field.description else ""
    if first["type"] == "missing":
        return f"{path} is missing{about}{more}"
    if first["type"] == "value_error":
        return f"{path}{': ' if path else ''}{first['msg'].removeprefix('Value error, ')}{more}"
    rule = _range(field) or first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float | date):
        rule += "; quote it: YAML takes it for something else"  # no, on, 2024-01-01
    return f"{path} = {first['input']!r}: {rule}{about}{more}"


def _named(loc: Iterable[str | int], raw: Any) -> Iterator[str]:
    """Path parts as a user writes them: list items by name where they have one."""
    for part in loc:
        if isinstance(raw, list) and isinstance(part, int):
            raw = raw[part]
            yield str(raw["name"]) if isinstance(raw, dict) and "name" in raw else str(part)
        else:
            raw = raw[part] if isinstance(raw, dict) and part in raw else None
            yield str(part)


def _schema_at(loc: Iterable[str | int], root: type[BaseModel]) -> tuple[FieldInfo | None, type[BaseModel]]:
    """The field that a path ends in or below (None where unknown), and the innermost model on the way."""
    field: FieldInfo | None = None
    model: type[BaseModel] = root
    annotation: Any = root
    for part in loc:
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
        elif (inner := _model_in(annotation)) is not None:
            model, field = inner, inner.model_fields.get(str(part))
            annotation = field.annotation if field else None
    return field, _model_in(annotation) or model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    found = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
    return found[0] if found else None


def _range(field: FieldInfo | None) -> str:
    """`must be >= 0 and <= 1`, or nothing for a field without bounds."""
    rules = [
        f"{sign} {getattr(rule, name)}"
        for rule in (field.metadata if field else [])
        for name, sign in BOUNDS.items()
        if hasattr(rule, name)
    ]
    return f"must be {' and '.join(rules)}" if rules else ""
