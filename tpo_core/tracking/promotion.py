"""Moves the alias `champion` to the challenger if all gates hold, and keeps an append-only log that can be walked back.

Order on promotion: the log is written, then the alias moves. A crash in between leaves an entry whose move did not
happen; promoting again finishes it without a second entry.
"""

import getpass
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tpo_core.config.schema import GateConfig
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, read_bytes, write_bytes
from tpo_core.tracking.gates import GateResult, check
from tpo_core.tracking.registry import FINGERPRINT, Registry, VersionInfo

CHAMPION, CHALLENGER = "champion", "challenger"
EVALUATION = "evaluation"  # tag: digest of what a version was measured on; numbers of two evaluations do not compare


@dataclass(frozen=True)
class Promotion:
    """What was decided: versions, one result a gate, whether all hold, and whether the alias moved."""

    challenger: VersionInfo
    champion: VersionInfo | None
    gates: list[GateResult]
    ok: bool
    moved: bool


def promote(
    registry: Registry, name: str, gates: Sequence[GateConfig], log_uri: str, *, dry_run: bool = False
) -> Promotion:
    """Compare `challenger` with `champion` (or with its base model where there is no champion) and move the alias.

    A challenger that already is the champion stays it, without gates or a log entry: asking twice does no harm.
    TpoError when there is no challenger, or no gate: nothing may become champion unjudged.
    """
    if not gates:
        raise TpoError("promotion.gates is empty, so that any model would pass: add at least one gate to the recipe")
    challenger, champion = registry.get_alias(name, CHALLENGER), registry.get_alias(name, CHAMPION)
    if challenger is None:
        raise TpoError(f"model {name!r} has no {CHALLENGER}: train and register one with pipelines/full_tpo.py")
    if champion is not None and champion.version == challenger.version:
        return Promotion(challenger, champion, [], ok=True, moved=False)
    results = [_judge(gate, challenger, champion) for gate in gates]
    ok = all(result.ok for result in results)
    if ok and not dry_run:
        _append(log_uri, _entry("promote", name, champion, challenger, results))
        registry.set_alias(name, CHAMPION, challenger.version)
    return Promotion(challenger, champion, results, ok, ok and not dry_run)


def rollback(registry: Registry, name: str, log_uri: str, *, dry_run: bool = False) -> tuple[int, int | None]:
    """Undo the last promotion that is not undone yet: (version that leaves, version that is champion again or None).

    TpoError when the log holds none, or when the alias was moved by other hands since.
    """
    entries = [entry for entry in read_log(log_uri) if entry["model"] == name]
    champion = registry.get_alias(name, CHAMPION)
    if entries and entries[-1]["action"] == "rollback" and champion and champion.version == entries[-1]["from"]:
        entries.pop()  # written by an attempt that died before it moved the alias
    undone = _open_promotions(entries)
    if not undone:
        raise TpoError(f"{log_uri} holds no promotion of {name!r} to undo")
    last = undone[-1]
    if champion is None or champion.version != last["to"]:
        now = "nothing" if champion is None else f"version {champion.version}"
        raise TpoError(f"{CHAMPION} names {now}, the log says version {last['to']}: set the alias by hand in MLflow")
    before = None if last["from"] is None else registry.get(name, last["from"])
    if not dry_run:
        _append(log_uri, _entry("rollback", name, champion, before, []))
        if before is None:
            registry.delete_alias(name, CHAMPION)
        else:
            registry.set_alias(name, CHAMPION, before.version)
    return champion.version, last["from"]


def read_log(log_uri: str) -> list[dict[str, Any]]:
    """All entries, oldest first."""
    if not exists(log_uri):
        return []
    return [json.loads(line) for line in read_bytes(log_uri).decode().splitlines()]


def _judge(gate: GateConfig, challenger: VersionInfo, champion: VersionInfo | None) -> GateResult:
    if gate.against == "champion" and champion is not None:
        if challenger.tags.get(EVALUATION) != champion.tags.get(EVALUATION):
            return GateResult(
                gate.metric,
                challenger.metrics.get(gate.metric),
                champion.metrics.get(gate.metric),
                False,
                f"champion v{champion.version} was measured on another evaluation: measure and register it again",
            )
        return check([gate], challenger.metrics, champion.metrics)[0]
    if gate.against == "champion" and challenger.base_metrics is None:
        return check([gate], challenger.metrics, None)[0]
    against_base = gate.model_copy(update={"against": "base"})
    return check([against_base], challenger.metrics, challenger.base_metrics or {})[0]


def _entry(
    action: str, name: str, old: VersionInfo | None, new: VersionInfo | None, gates: Sequence[GateResult]
) -> dict[str, Any]:
    return {
        "action": action,
        "model": name,
        "from": old.version if old else None,
        "to": new.version if new else None,
        "who": getpass.getuser(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": new.tags.get(FINGERPRINT) if new else None,
        "gates": [asdict(gate) for gate in gates],
        "metrics": new.metrics if new else {},
    }


def _append(log_uri: str, entry: dict[str, Any]) -> None:
    """The whole log is replaced at once, so that no reader meets half a line; also works on S3."""
    entries = read_log(log_uri)
    last = entries[-1] if entries else {}
    if all(last.get(key, ...) == entry[key] for key in ("action", "model", "from", "to")):
        return  # written by an attempt that died before it moved the alias
    lines = [json.dumps(_finite(one), allow_nan=False) for one in (*entries, entry)]
    write_bytes(log_uri, ("\n".join(lines) + "\n").encode())


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _open_promotions(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Promotions of one model that no rollback has undone, oldest first."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        found = [*found, entry] if entry["action"] == "promote" else found[:-1]
    return found
