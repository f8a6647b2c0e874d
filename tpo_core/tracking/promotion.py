"""Moves the alias `champion` to the challenger if all gates hold, and back.

What is champion is said by the log (`promotion_log`); the alias follows it. Where the two differ, a move was cut off
(it is finished), a version was deleted, or other hands moved the alias (both are told). The caller sees to it that no
two processes are here for the same log at a time; should they be, the log refuses the second.
"""

import getpass
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.tracking.gates import GateResult, Measured, check
from tpo_core.tracking.promotion_log import PromotionLog, champions
from tpo_core.tracking.registry import FINGERPRINT, Registry, VersionInfo

CHAMPION, CHALLENGER = "champion", "challenger"
EVALUATION = "evaluation"  # tag: digest of what a version was measured on; numbers of two evaluations do not compare
DATA = "data_digest"  # tag: of the shards


@dataclass(frozen=True)
class Promotion:
    """What was decided: versions, one result a gate, whether all hold, and whether the alias moved. notes: what was
    found in disorder, for people."""

    challenger: VersionInfo
    champion: VersionInfo | None
    gates: list[GateResult]
    ok: bool
    moved: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Standing:
    """Who is champion. champion: the last one of the log that is still there, or, where the log is empty, whatever the
    alias names; alias: the version that it names. last: number of the last entry. resumed: the entry that was finished
    just now."""

    champion: VersionInfo | None
    alias: VersionInfo | None
    lineage: list[int]
    last: int
    notes: list[str]
    resumed: dict[str, Any] | None


def promote(
    registry: Registry, name: str, asked: PromotionConfig, log: PromotionLog, *, dry_run: bool = False
) -> Promotion:
    """Compare `challenger` with the champion (or with its base model where there is none) and move the alias.

    A challenger that already is the champion stays it, without gates or a log entry: asking twice does no harm.
    TpoError when there is no challenger, or no gate: nothing may become champion unjudged.
    """
    if not asked.gates:
        raise TpoError("promotion.gates is empty, so that any model would pass: add at least one gate to the recipe")
    now = standing(registry, name, log, dry_run=dry_run)
    challenger, champion = registry.get_alias(name, CHALLENGER), now.champion
    if challenger is None:
        raise TpoError(f"model {name!r} has no {CHALLENGER}: train and register one with pipelines/full_tpo.py")
    if now.lineage and now.alias is not None and challenger.version == now.alias.version == now.lineage[-1]:
        return Promotion(challenger, now.alias, [], ok=True, moved=False, notes=now.notes)
    if champion is not None and champion.version == challenger.version:
        champion = None  # nothing but itself to compare with: the base model stands in
    results = _judge(registry, asked, challenger, champion)
    ok = all(result.ok for result in results)
    if ok and not dry_run:
        _move(registry, log, now.last, _entry("promote", name, now.champion, challenger, results))
    return Promotion(challenger, champion, results, ok, ok and not dry_run, now.notes)


def rollback(
    registry: Registry, name: str, log: PromotionLog, *, dry_run: bool = False
) -> tuple[int | None, int | None]:
    """Undo the last promotion that is not undone yet: (version that leaves, version that is champion again or None).

    Where the alias names another version than the log, it goes back to what the log says; where a rollback was cut off,
    it is finished, and that is all. Versions that were deleted are passed over. TpoError when there is nothing to undo.
    """
    now = standing(registry, name, log, dry_run=dry_run)
    if now.resumed is not None and now.resumed["action"] == "rollback":
        return now.resumed["from"], now.resumed["to"]
    if not now.lineage:
        raise TpoError(f"{log.uri} holds no promotion of {name!r} to undo")
    alias, before = now.alias.version if now.alias else None, now.champion
    if alias == now.lineage[-1]:
        before = _last_there(registry, name, now.lineage[:-1])
    if not dry_run:
        _move(registry, log, now.last, _entry("rollback", name, now.alias, before, []))
    return alias, before.version if before else None


def standing(registry: Registry, name: str, log: PromotionLog, *, dry_run: bool) -> Standing:
    """Finish a move that was cut off (not on a dry run), and tell where alias and log differ."""
    everything = log.entries()
    entries = [entry for entry in everything if entry["model"] == name]
    notes: list[str] = []
    resumed = entries[-1] if entries and not entries[-1]["done"] else None
    if resumed is not None:
        notes.append(f"a {resumed['action']} to {_label(resumed['to'])} was cut off: it is finished now")
        if not dry_run:
            _carry_out(registry, log, resumed)
    alias, lineage = registry.get_alias(name, CHAMPION), champions(entries)
    champion = _last_there(registry, name, lineage) if lineage else alias
    expected = entries[-1]["to"] if entries else None
    if expected is not None and registry.find(name, expected) is None:
        notes.append(f"{CHAMPION} {_label(expected)} was deleted: {_named(champion)} stands in for it")
    elif (alias.version if alias else None) != expected and not (dry_run and resumed):
        notes.append(
            f"alias {CHAMPION} was moved by hand to {_named(alias)}, the log says {_label(expected)}:"
            " --rollback puts it back"
        )
    return Standing(champion, alias, lineage, everything[-1]["number"] if everything else 0, notes, resumed)


def _judge(
    registry: Registry, asked: PromotionConfig, challenger: VersionInfo, champion: VersionInfo | None
) -> list[GateResult]:
    paired = any(gate.worst_drop is not None for gate in asked.gates)
    samples = registry.samples(challenger) if paired else {}
    mine = Measured(challenger.metrics, samples.get("model", {}))
    base = None
    if challenger.base_metrics is not None:
        base = Measured(challenger.base_metrics, samples.get("base", {}))
    theirs = None
    if champion is not None:
        theirs = Measured(champion.metrics, registry.samples(champion).get("model", {}) if paired else {})
    return [_required(part, challenger, champion) for part in asked.required_parts] + [
        _gate(gate, challenger, champion, mine, theirs, base) for gate in asked.gates
    ]


def _required(part: str, challenger: VersionInfo, champion: VersionInfo | None) -> GateResult:
    """Whether a part was evaluated, and on the data that the champion was evaluated on."""
    count = sum(metric.startswith(f"{part}/") for metric in challenger.metrics)
    ok, reason = count > 0, f"{count} numbers"
    if not ok:
        reason = f"not evaluated: add {part} to evaluation.parts, then measure and register it again"
    elif champion is not None and challenger.tags.get(DATA) != champion.tags.get(DATA):
        ok, reason = False, f"on other data than champion v{champion.version}: measure and register that one again"
    return GateResult(f"evaluation of {part}", None, None, ok, reason)


def _gate(
    gate: GateConfig,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    mine: Measured,
    theirs: Measured | None,
    base: Measured | None,
) -> GateResult:
    if gate.max_value is None and gate.against == "champion" and champion is not None:
        if challenger.tags.get(EVALUATION) != champion.tags.get(EVALUATION):
            return GateResult(
                gate.metric,
                challenger.metrics.get(gate.metric),
                champion.metrics.get(gate.metric),
                False,
                f"champion v{champion.version} was measured on another evaluation: measure and register it again",
            )
        return check([gate], mine, theirs)[0]
    if gate.against == "champion" and base is None:
        return check([gate], mine, None)[0]
    return check([gate.model_copy(update={"against": "base"})], mine, base or Measured({}))[0]


def _move(registry: Registry, log: PromotionLog, last: int, entry: dict[str, Any]) -> None:
    number = log.append(entry, last)
    _carry_out(registry, log, {**entry, "number": number})


def _carry_out(registry: Registry, log: PromotionLog, entry: dict[str, Any]) -> None:
    """Have the alias name what an entry says, if that is still there."""
    name, to = entry["model"], entry["to"]
    if to is None:
        if registry.get_alias(name, CHAMPION) is not None:
            registry.delete_alias(name, CHAMPION)
    elif registry.find(name, to) is not None:
        registry.set_alias(name, CHAMPION, to)
    log.finish(entry["number"])


def _last_there(registry: Registry, name: str, lineage: Sequence[int]) -> VersionInfo | None:
    return next((found for number in reversed(lineage) if (found := registry.find(name, number))), None)


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


def _label(version: int | None) -> str:
    return "nothing" if version is None else f"v{version}"


def _named(version: VersionInfo | None) -> str:
    return _label(version.version if version else None)
