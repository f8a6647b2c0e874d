"""The dashboard is what its script writes; it and the alerts ask for numbers that are exported, with labels that they
have."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import promql_parser
import pytest
import ray
import yaml

from pipelines import gauges
from tests.unit.cluster.manifests import CLUSTER, clusters, objects
from tpo_core.data import preprocess
from tpo_core.train import prometheus

MONITORING = CLUSTER / "monitoring"
OWN = {
    **{f"ray_{gauge}": {"phase", tag} for gauge, tag in prometheus.SERIES.values()},
    **{f"ray_tpo_{name}": {"phase"} for name in prometheus.SINGLE},
    **{f"ray_tpo_preprocess_{name}": set() for name in preprocess.GAUGES},
    "ray_tpo_step": {"phase"},
    f"ray_{prometheus.CHECKPOINT_TIME}": {"phase"},
    f"ray_{gauges.STEP}": {"step"},
    f"ray_{gauges.PHASE}": {"phase"},
}
FROM_RAY = {"instance", "Location"}  # labels that Prometheus and Ray add


@pytest.fixture(scope="module")
def make_dashboard():
    spec = importlib.util.spec_from_file_location("make_dashboard", MONITORING / "make_dashboard.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rules():
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    [group] = content["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.fixture(scope="module")
def rays_own():
    """Names of numbers that Ray's own dashboards show."""
    folder = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
    found = {name for file in folder.glob("*.py") for name in names(file.read_text(encoding="utf-8"))}
    assert len(found) > 50
    return found


def names(expression):
    return set(re.findall(r"\bray_\w+", expression))


def labels(expression):
    """Labels that an expression groups or selects by."""
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    selected = re.findall(r"(\w+)(?:=~|=)\"", expression)
    return {label.strip() for group in grouped for label in group.split(",")} | set(selected)


def test_the_dashboard_is_what_the_script_writes(make_dashboard):
    assert make_dashboard.FILE.read_text(encoding="utf-8") == make_dashboard.text()


def test_panels_lie_side_by_side_and_have_titles_of_their_own(make_dashboard):
    panels = make_dashboard.dashboard()["panels"]
    assert len({each["title"] for each in panels}) == len({each["id"] for each in panels}) == len(panels)
    places = {(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels}
    assert len(places) == len(panels)
    assert all(x + make_dashboard.WIDTH <= 24 for x, _ in places)


def test_what_somebody_wants_to_see_is_there(make_dashboard):
    shown = {name for panel in make_dashboard.PANELS for line in panel.lines.values() for name in names(line)}
    assert shown >= {
        "ray_tpo_chain_step_running",
        "ray_tpo_loss",
        "ray_tpo_samples_per_s",
        "ray_tpo_mfu",
        "ray_tpo_data_wait",
        "ray_tpo_preprocess_samples_rejected",
        "ray_tpo_checkpoint_unix_s",
        "ray_object_store_memory",
    }


def test_panels_ask_for_numbers_that_there_are(make_dashboard, rays_own):
    for panel in make_dashboard.PANELS:
        for legend, expression in panel.lines.items():
            check(expression.replace("$phase", ".*"), rays_own)
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
            assert shown <= labels(expression), panel.title


def test_alerts_ask_for_numbers_that_there_are(rules, rays_own):
    assert rules.keys() >= {"TpoNoStep", "TpoRejectBudgetNear", "TpoObjectStoreSpills", "TpoCheckpointTooOld"}
    for name, rule in rules.items():
        check(rule["expr"], rays_own)
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert shown <= labels(rule["expr"]), name


def check(expression, rays_own):
    promql_parser.parse(expression)
    asked = names(expression)
    assert asked
    assert asked <= OWN.keys() | rays_own
    own = [OWN[name] for name in asked if name in OWN]
    if own:
        assert labels(expression) <= set.union(*own) | FROM_RAY, expression


def test_an_alert_without_a_step_counts_fifteen_minutes(rules):
    rule = rules["TpoNoStep"]
    window = int(re.search(r"\[(\d+)m\]", rule["expr"])[1])
    assert window + int(rule["for"].removesuffix("m")) == 15


def test_alerts_send_to_headings_of_the_runbook(rules):
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE))
    for rule in rules.values():
        file, heading = re.fullmatch(r'(\S+), "(.*)"', rule["annotations"]["runbook"]).groups()
        assert file == "cluster/README.md"
        assert heading in headings


def test_what_is_scraped_is_a_port_of_the_pods():
    [monitor] = [each for each in objects("prod") if each["kind"] == "PodMonitor"]
    scraped = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    for _, spec in clusters():
        head = {each["name"] for each in spec["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]}
        assert scraped <= head
        for group in spec["workerGroupSpecs"]:
            assert "metrics" in {each["name"] for each in group["template"]["spec"]["containers"][0]["ports"]}


def test_grafana_finds_the_dashboard():
    [config] = [each for each in objects("prod") if each["metadata"]["name"] == "tpo-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["dashboard.json"])["title"] == "TPO platform"
