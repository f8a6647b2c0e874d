"""What every section of a recipe shares, and which of its fields identify a result."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Base of every section: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


Fraction = Annotated[float, Field(ge=0, le=1)]


def drop_nulls(table: Any) -> Any:
    """A table without its null entries, so that an override can take an entry out: `lr.vision_encoder=null`."""
    return {key: value for key, value in table.items() if value is not None} if isinstance(table, dict) else table


def execution(default: Any = ..., **field: Any) -> Any:
    """A field that says where or how a run is carried out: `identity` drops it. Arguments as of pydantic's Field."""
    return Field(default, json_schema_extra={"execution": True}, **field)


def late(**field: Any) -> Any:
    """A field that came when results existed: `identity` names it only away from its default, so that the
    fingerprints of those results stay. Arguments as of pydantic's Field."""
    return Field(json_schema_extra={"late": True}, **field)


def identity(config: Config) -> dict[str, Any]:
    """The JSON form of a section without its execution fields, and late ones at their defaults: what enters a
    fingerprint."""
    return {
        name: _plain(getattr(config, name))
        for name, field in type(config).model_fields.items()
        if not _unnamed(config, name, field)
    }


def _unnamed(config: Config, name: str, field: FieldInfo) -> bool:
    marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return "execution" in marks or (
        "late" in marks and getattr(config, name) == field.get_default(call_default_factory=True)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return identity(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
