"""What the runbook says to type is there, and what is there the runbook says to type."""

import importlib.util
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from pipelines import promote
from tests.unit.cluster.manifests import CLUSTER, JOBS, OVERLAYS, PLATFORMS, ROOT, objects, the_job, walk
from tpo_core.models.convert.__main__ import main as convert

TEXT = (CLUSTER / "README.md").read_text(encoding="utf-8")
JOINED = TEXT.replace("\\\n", " ")


def typed(beginning):
    """Commands of the runbook that begin so, as words."""
    return [shlex.split(line, comments=True) for line in JOINED.splitlines() if line.startswith(beginning)]


def overrides(words):
    return {word for word in words if "=" in word and not word.startswith("--")}


def rendered(overlay):
    """The text of an overlay in a copy of the manifests."""
    run = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def copied(tmp_path):
    """A copy of the manifests to change."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which holds kustomize")
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    return tmp_path / "cluster"


def test_every_overlay_that_is_named_is_there_and_every_platform_is_named():
    named = set(re.findall(r"kubectl (?:apply|create) -k cluster/overlays/([\w/-]+)", TEXT))
    assert named <= set(OVERLAYS)
    assert set(PLATFORMS) <= named
    assert {job for job in JOBS if job.endswith("full-tpo")} <= named


def test_a_job_is_created_and_a_platform_is_applied():
    """Applying a job again would change one that runs."""
    applied = set(re.findall(r"kubectl apply -k cluster/overlays/([\w/-]+)", TEXT))
    assert not applied & set(JOBS)


def test_images_that_are_built_are_those_that_the_manifests_of_dev_name():
    built = set(re.findall(r"docker build .* -t (\S+) \.", TEXT))
    used = {
        node["image"]
        for overlay in OVERLAYS
        if overlay.startswith("dev")
        for manifest in objects(overlay)
        for node in walk(manifest)
        if isinstance(node, dict) and str(node.get("image", "")).startswith("tpo:")
    }
    assert used <= built
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"--target (\w+)", TEXT)) <= set(re.findall(r" AS (\S+)", dockerfile))


def test_secrets_that_are_made_are_used_whole():
    made = dict(re.findall(r"create secret generic (\S+)(.*)", TEXT.replace("\\\n", " ")))
    used = {
        (node["secretKeyRef"]["name"], node["secretKeyRef"]["key"])
        for overlay in OVERLAYS
        for manifest in objects(overlay)
        for node in walk(manifest)
        if isinstance(node, dict) and isinstance(node.get("secretKeyRef"), dict)
    }
    assert {(name, key) for name, rest in made.items() for key in re.findall(r"literal=([\w-]+)=", rest)} == used


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", TEXT))))
def test_modules_that_are_run_are_there(module):
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b(?:pipelines|cluster|base|overlays)/[\w./-]+\w", TEXT))))
def test_files_that_are_named_are_there(path):
    assert (ROOT / path).exists() or (CLUSTER / path).exists()


def test_switches_of_the_operator_are_those_that_the_manifests_need():
    needed = set()
    for manifest in (each for overlay in OVERLAYS for each in objects(overlay)):
        needed |= {"RayCronJob"} if manifest["kind"] == "RayCronJob" else set()
        needed |= {"RayJobDeletionPolicy"} if "deletionStrategy" in str(manifest) else set()
    assert set(re.findall(r"featureGates\[\d\]\.name=(\w+)", TEXT)) == needed


def test_the_promotions_that_are_typed_are_those_of_dev_and_prod_and_the_pipeline_takes_them():
    lines = {words[3]: words for words in typed("python pipelines/promote.py")}
    assert {recipe: words[2] for recipe, words in lines.items()} == {
        "quickstart": "--recipe",
        "videochat_tpo": "--recipe",
    }
    for overlay, recipe in (("dev/full-tpo", "quickstart"), ("prod/full-tpo", "videochat_tpo")):
        there = overrides(shlex.split(the_job(overlay)["spec"]["entrypoint"]))
        [work_uri] = [word for word in there if word.startswith("work_uri=")]
        assert work_uri in lines[recipe][4:]
        assert all("=" in word for word in lines[recipe][4:])
    assert promote.__doc__.startswith("python pipelines/promote.py")
    assert "--rollback" in promote.__doc__


def test_the_dry_run_of_prod_is_of_the_chain_that_prod_starts():
    [words] = typed("python pipelines/full_tpo.py --dry-run")
    started = shlex.split(the_job("prod/full-tpo")["spec"]["entrypoint"])
    assert [word for word in words if word != "--dry-run"] == started


def test_every_model_and_the_data_that_prod_reads_are_put_there(capsys):
    named = {
        word.partition("=")[0]: word.partition("=")[2] for word in overrides(typed("python pipelines/full_tpo.py")[0])
    }
    made = {words[words.index("--to") + 1]: words for words in typed("python -m tpo_core.models.convert")}
    assert made.keys() == {named["model.base"], named["model.mask.sam2.source"]}
    for words in made.values():
        with pytest.raises(SystemExit) as ended:
            convert([words[3], "--help"])
        assert ended.value.code == 0
        assert {word for word in words if word.startswith("--")} <= set(
            re.findall(r"--[\w-]+", capsys.readouterr().out)
        )
    assert named["data.root"] in {words[-1] for words in typed("aws s3 cp")}


def test_storage_of_dev_is_asked_with_its_endpoint_and_keys():
    block = next(each for each in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL) if "aws s3 cp" in each)
    before = block.partition("aws s3")[0]
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        assert f"{variable}=" in before
    [port] = re.findall(r"port-forward svc/s3 (\d+)", before)
    assert f"AWS_ENDPOINT_URL=http://localhost:{port}" in before


def test_no_command_waits_for_ever():
    for words in typed("kubectl -n tpo"):
        assert not {"-w", "--watch"} & set(words)
        assert "wait" not in words or any(word.startswith("--timeout=") for word in words)


def test_tags_of_a_commit_are_those_that_all_of_prod_takes(copied):
    [line] = [each for each in JOINED.splitlines() if each.startswith("sed ")]
    command = f"registry=harbor.local/ml tag=2.60.0-0123456789ab; {line}"
    run = subprocess.run(["bash", "-euc", command], cwd=copied.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for overlay in (each for each in OVERLAYS if each.startswith(("prod", "kueue"))):
        images = set(re.findall(r"image: (\S+)", rendered(copied / "overlays" / overlay)))
        assert images <= {f"harbor.local/ml/tpo:2.60.0-0123456789ab-{kind}" for kind in ("cpu", "cuda")}
        assert images


def test_the_patch_that_switches_the_nightly_evaluation_on_does(copied):
    [patch] = re.findall(r"```yaml\n(  - target: \{kind: RayCronJob\}\n.*?)```", TEXT, re.DOTALL)
    file = copied / "overlays" / "prod" / "nightly-evaluation" / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("patches:\n", f"patches:\n{patch}"), encoding="utf-8")
    [job] = [
        each for each in yaml.safe_load_all(rendered(copied / "overlays" / "prod")) if each["kind"] == "RayCronJob"
    ]
    assert job["spec"]["suspend"] is False
