"""Moves the alias `champion` to the challenger if all gates hold, and back.

What is champion is said by the log (`promotion_log`); the alias follows it. Where the two differ, a move was cut off
(it is finished), a version was deleted, or other hands moved the alias (both are told). A version is one number and one
fingerprint: another model under the number of a deleted one is not that one. The caller sees to it that no two
processes are here for the same log at a time; should they be, the log refuses the second, and the newest entry wins.
"""

import getpass
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.tracking.gates import GateResult, Measured, check
from tpo_core.tracking.promotion_log import Entry, PromotionLog, champions, finite
from tpo_core.tracking.registry import FINGERPRINT, Registry, VersionInfo

CHAMPION, CHALLENGER = "champion", "challenger"
EVALUATION = "evaluation"  # tag: digest of what a version was measured on; numbers of two evaluations do not compare
DATA = "data_digest"  # tag: of the shards

Tell = Callable[[str], None]  # takes what was found in disorder, for people; before anything raises
_WARN = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Promotion:
    """What was decided: versions, one result a gate, whether all hold, and whether the log got an entry.

    champion: what the challenger was compared with. action: of the entry, also where a dry run or a gate kept it from
    being written; None where the challenger is the champion already, and all is in order.
    """

    challenger: VersionInfo
    champion: VersionInfo | None
    gates: list[GateResult]
    ok: bool
    moved: bool
    action: str | None


@dataclass(frozen=True)
class Standing:
    """Who is champion. champion: the last one of the log that is still there, or, where the log does not know the
    model, whatever the alias names; alias: the version that it names. lineage: see `champions`; kept: the part of it
    that ends with the champion. logged: whether the log knows the model; last: number of the last entry. resumed: the
    entry that was finished just now."""

    champion: VersionInfo | None
    alias: VersionInfo | None
    lineage: list[Entry]
    kept: list[Entry]
    logged: bool
    last: int
    resumed: Entry | None

    @property
    def in_order(self) -> bool:
        """Whether the alias names what the log says."""
        return _is(self.alias, self.lineage[-1] if self.lineage else None)


def promote(
    registry: Registry,
    name: str,
    asked: PromotionConfig,
    log: PromotionLog,
    *,
    dry_run: bool = False,
    tell: Tell = _WARN,
) -> Promotion:
    """Compare `challenger` with the champion (or with its base model where there is none) and move the alias.

    A challenger that already is the champion stays it: asking twice does no harm. It is judged again if it was measured
    again, and its alias is put back if other hands moved it. TpoError when there is no challenger, or no gate: nothing
    may become champion unjudged; and when the alias did not move because the challenger was deleted meanwhile.
    """
    if not asked.gates:
        raise TpoError("promotion.gates is empty, so that any model would pass: add at least one gate to the recipe")
    now = standing(registry, name, log, dry_run=dry_run, tell=tell)
    challenger, champion, action = registry.get_alias(name, CHALLENGER), now.champion, "promote"
    if challenger is None:
        raise TpoError(f"model {name!r} has no {CHALLENGER}: train and register one with pipelines/full_tpo.py")
    if champion is not None and champion.version == challenger.version:
        if now.kept and not _measured_again(champion, now.kept[-1]):
            return _keep(registry, name, log, now, champion, dry_run=dry_run)
        if now.kept:
            action = "confirm"
            tell(
                f"{CHAMPION} {_named(champion)} was measured again since it was judged, so it is judged again;"
                " if it is refused, --rollback takes it back"
            )
        champion, _ = _last_there(registry, name, now.kept[:-1])  # it cannot be compared with itself
    results = _judge(registry, asked, challenger, champion)
    ok = all(result.ok for result in results)
    if ok and not dry_run:
        _move(registry, log, now.last, _entry(action, name, now.champion, challenger, results))
    return Promotion(challenger, champion, results, ok, ok and not dry_run, action)


def rollback(
    registry: Registry, name: str, log: PromotionLog, *, dry_run: bool = False, tell: Tell = _WARN
) -> tuple[int | None, int | None]:
    """Undo the last promotion that is not undone yet: (version that leaves, version that is champion again or None).

    Where the alias names another version than the log, it goes back to what the log says; where a rollback was cut off,
    it is finished, and that is all. Versions that were deleted are passed over. TpoError when there is nothing to undo.
    """
    now = standing(registry, name, log, dry_run=dry_run, tell=tell)
    if now.resumed is not None and now.resumed["action"] == "rollback":
        return now.resumed["from"], now.resumed["to"]
    if not now.lineage and (now.in_order or not now.logged):
        raise TpoError(f"{log.uri} holds no promotion of {name!r} to undo")
    before = now.champion
    if now.in_order:
        before, _ = _last_there(registry, name, now.lineage[:-1])
    if not dry_run:
        _move(registry, log, now.last, _entry("rollback", name, now.alias, before, []))
    return now.alias.version if now.alias else None, before.version if before else None


def standing(registry: Registry, name: str, log: PromotionLog, *, dry_run: bool, tell: Tell) -> Standing:
    """Finish a move that was cut off (not on a dry run), and tell where alias and log differ."""
    resumed = _resume(registry, name, log, dry_run=dry_run, tell=tell)
    everything = log.entries()
    entries = [entry for entry in everything if entry["model"] == name]
    alias, lineage = registry.get_alias(name, CHAMPION), champions(entries)
    champion, kept = _last_there(registry, name, lineage)
    if not entries:
        champion = alias
    last = everything[-1]["number"] if everything else 0
    now = Standing(champion, alias, lineage, kept, bool(entries), last, resumed)
    if not (dry_run and resumed):
        _tell_disorder(now, log, tell)
    return now


def _resume(registry: Registry, name: str, log: PromotionLog, *, dry_run: bool, tell: Tell) -> Entry | None:
    """The last entry of the model, if its move was cut off and has been finished now, or would be on a dry run."""
    last = next((entry for entry in reversed(log.entries()) if entry["model"] == name), None)
    if last is None or last["done"]:
        return None
    what = f"a {last['action']} to {_label(last['to'])} was cut off"
    if dry_run:
        tell(f"{what}: the next run finishes it")
    elif _carry_out(registry, log, last) is not None:
        tell(f"{what}: it is finished now")
    else:
        tell(f"{what}, and {_label(last['to'])} was deleted since: the alias stays where it is")
        return None
    return last


def _tell_disorder(now: Standing, log: PromotionLog, tell: Tell) -> None:
    deleted = len(now.kept) < len(now.lineage)
    if deleted:
        tell(f"{CHAMPION} {_label(now.lineage[-1]['to'])} was deleted: {_named(now.champion)} stands in for it")
    expected = {None, now.champion.version if now.champion else None} if deleted else set()  # its alias went with it
    if now.in_order or (now.alias.version if now.alias else None) in expected:
        return
    if now.logged:
        tell(
            f"alias {CHAMPION} was moved by hand to {_named(now.alias)}, the log says {_named(now.champion)}:"
            " --rollback puts it back"
        )
    else:
        tell(
            f"alias {CHAMPION} was set to {_named(now.alias)} by hand, {log.uri} holds no promotion of it:"
            " challengers are compared with it; delete the alias in MLflow to compare them with their base model"
        )


def _keep(
    registry: Registry, name: str, log: PromotionLog, now: Standing, champion: VersionInfo, *, dry_run: bool
) -> Promotion:
    """The challenger is the champion of the log. A rollback to it leaves the lineage as it is and moves the alias."""
    if now.in_order:
        return Promotion(champion, champion, [], ok=True, moved=False, action=None)
    if not dry_run:
        _move(registry, log, now.last, _entry("rollback", name, now.alias, champion, []))
    return Promotion(champion, champion, [], ok=True, moved=not dry_run, action="rollback")


def _measured_again(version: VersionInfo, entry: Entry) -> bool:
    """Whether a version carries other numbers than those that an entry says it was judged on."""
    evaluation = version.tags.get(EVALUATION)
    return finite(version.metrics) != entry["metrics"] or ("evaluation" in entry and entry["evaluation"] != evaluation)


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
    elif champion is not None:
        unknown = [_named(one) for one in (challenger, champion) if DATA not in one.tags]
        if unknown:
            ok, reason = False, f"no record of the data of {' and '.join(unknown)}: measure and register again"
        elif challenger.tags[DATA] != champion.tags[DATA]:
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


def _move(registry: Registry, log: PromotionLog, last: int, entry: Entry) -> None:
    """TpoError when the alias does not name the version of the entry after."""
    number = log.append(entry, last)
    stands = _carry_out(registry, log, {**entry, "number": number})
    if stands is None:
        raise TpoError(
            f"{_label(entry['to'])} was deleted meanwhile: alias {CHAMPION} was not moved to it;"
            " --rollback takes it out of the log"
        )
    if stands["number"] != number:
        raise TpoError(f"another run has moved alias {CHAMPION} to {_label(stands['to'])} meanwhile: see {log.uri}")


def _carry_out(registry: Registry, log: PromotionLog, entry: Entry) -> Entry | None:
    """Have the alias name what an entry says, or what a newer one says; the entry that it follows now, None if the
    version of that was deleted.

    Each process reads the log after it moved the alias; so should there be two, the one that moves it last moves it to
    the newest entry.
    """
    name, to = entry["model"], entry["to"]
    found = _there(registry, name, entry)
    if to is None:
        if registry.get_alias(name, CHAMPION) is not None:
            registry.delete_alias(name, CHAMPION)
    elif found is not None:
        registry.set_alias(name, CHAMPION, to)
    log.finish(entry["number"])
    newest = next(other for other in reversed(log.entries()) if other["model"] == name)
    if newest["number"] != entry["number"]:
        return _carry_out(registry, log, newest)
    return entry if to is None or found is not None else None


def _last_there(registry: Registry, name: str, lineage: Sequence[Entry]) -> tuple[VersionInfo | None, list[Entry]]:
    """The last version of a lineage that is still there, and the lineage up to it."""
    for end in range(len(lineage), 0, -1):
        found = _there(registry, name, lineage[end - 1])
        if found is not None:
            return found, list(lineage[:end])
    return None, []


def _there(registry: Registry, name: str, entry: Entry) -> VersionInfo | None:
    """The version that an entry is about, if it is still there."""
    if entry["to"] is None:
        return None
    found = registry.find(name, entry["to"])
    return found if _is(found, entry) else None


def _is(version: VersionInfo | None, entry: Entry | None) -> bool:
    """Whether a version is what an entry is about; None and None are the same."""
    if version is None or entry is None:
        return version is entry
    return (version.version, version.tags.get(FINGERPRINT)) == (entry["to"], entry["fingerprint"])


def _entry(
    action: str, name: str, old: VersionInfo | None, new: VersionInfo | None, gates: Sequence[GateResult]
) -> Entry:
    return {
        "action": action,
        "model": name,
        "from": old.version if old else None,
        "to": new.version if new else None,
        "who": getpass.getuser(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": new.tags.get(FINGERPRINT) if new else None,
        "evaluation": new.tags.get(EVALUATION) if new else None,
        "gates": [asdict(gate) for gate in gates],
        "metrics": new.metrics if new else {},
    }


def _label(version: int | None) -> str:
    return "nothing" if version is None else f"v{version}"


def _named(version: VersionInfo | None) -> str:
    return _label(version.version if version else None)
