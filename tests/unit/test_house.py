"""The rules of the house, held over the source itself: who imports whom, file sizes, entry points."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
PYTHON = ("tpo_core", "pipelines", "tests", "benchmarks")

# A room imports from lower levels only, and not from its own level, but for MAY_ALSO.
LEVELS = [
    {"config", "storage", "errors"},
    {"heads", "models", "data", "metrics"},
    {"evaluation", "train", "tune", "tracking", "execution"},
    {"inference", "plan"},
    {"pipelines"},
]
MAY_ALSO = {("models", "heads"), ("models", "data"), ("config", "errors"), ("storage", "errors")}

# Packages that stay in few places, so that all else is tested in one process without a cluster.
ONLY_IN = {
    "ray.data": ["tpo_core/data/preprocess.py", "tpo_core/evaluation/pool.py"],
    "ray.train": ["tpo_core/train/ray_trainer.py"],
    "ray.tune": ["tpo_core/tune/loss_weights.py", "tpo_core/tune/schedulers.py"],
    "ray": [
        "tpo_core/data/preprocess.py",
        "tpo_core/evaluation/pool.py",
        "tpo_core/train/ray_trainer.py",
        "tpo_core/train/desk.py",
        "tpo_core/train/room.py",
        "tpo_core/train/prometheus.py",  # gauges that Ray exports
        "tpo_core/tune/loss_weights.py",
        "tpo_core/tune/schedulers.py",
        "tpo_core/tune/slots.py",
        "pipelines/",
    ],
    "mlflow": ["tpo_core/tracking/", "tpo_core/inference/served.py"],  # what MLflow itself runs
    "boto3": ["tpo_core/storage/s3.py"],
    "botocore": ["tpo_core/storage/s3.py"],
    "deepspeed": ["tpo_core/train/strategies/zero.py"],
    "decord": ["tpo_core/data/decode.py"],
    "pycocotools": ["tpo_core/metrics/mask_files.py"],
    "trackeval": ["tpo_core/metrics/scorers/mot.py"],
}
WITHOUT_TORCH = {"config", "storage", "execution", "metrics", "tracking"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(module: str) -> str:
    """`tpo_core.data.sample` is of room data; anything under pipelines is of room pipelines."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tpo_core" and len(parts) > 1 else parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, function bodies included; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden_room(importer: str, imported: str) -> bool:
    """Whether a room may not import another."""
    if importer == imported or (importer, imported) in MAY_ALSO:
        return False
    level = {each: height for height, rooms in enumerate(LEVELS) for each in rooms}
    return level[imported] >= level[importer]


def misplaced(module: str, path: str) -> str | None:
    """The rule that an import breaks, or None."""
    for package, places in ONLY_IN.items():
        within = module == package or module.startswith(f"{package}.")
        if within and not any(path == place or (place.endswith("/") and path.startswith(place)) for place in places):
            return f"{path} imports {module}; {package} belongs in {', '.join(places)}"
    return None


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources("tpo_core", "pipelines")}


def test_every_room_is_placed():
    known = set().union(*LEVELS)
    rooms = {room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in sources("tpo_core")}
    assert rooms - known - {"__init__"} == set()


def test_imports_go_one_way(trees):
    broken = []
    for path, tree in trees.items():
        importer = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in imports(tree):
            if module.split(".")[0] in ("tpo_core", "pipelines") and forbidden_room(importer, room(module)):
                broken.append(f"{name(path)} imports {module}")
    assert broken == []


def test_packages_stay_where_they_belong(trees):
    broken = [misplaced(module, name(path)) for path, tree in trees.items() for module in imports(tree)]
    assert [each for each in broken if each] == []


def test_one_door_to_ray(trees):
    """A bare ray.init() waits for minutes on a cluster that once ran here; `connect` says which Ray it wants."""
    calls = [
        name(path)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]
    assert calls == ["pipelines/cluster.py"]


def test_rooms_that_run_without_torch(trees):
    broken = [
        f"{name(path)} imports {module}"
        for path, tree in trees.items()
        for module in imports(tree)
        if path.relative_to(ROOT).parts[1] in WITHOUT_TORCH and module.split(".")[0] in ("torch", "transformers")
    ]
    assert broken == []


def test_no_two_test_files_have_one_name():
    """pytest imports them by their names alone."""
    names = [path.name for path in sources("tests") if path.name.startswith("test_")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_files_are_short():
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PYTHON)}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_source_is_ascii():
    assert [name(path) for path in sources(*PYTHON) if not path.read_bytes().isascii()] == []


def test_modules_and_public_classes_say_what_they_are(trees):
    bare = []
    for path, tree in trees.items():
        if tree.body and not ast.get_docstring(tree):
            bare.append(name(path))
        public = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        bare += [f"{name(path)}: {node.name}" for node in public if not ast.get_docstring(node)]
    assert bare == []


def test_an_entry_point_opens_with_the_command_that_runs_it(trees):
    runnable = [path for path in sources("pipelines") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    entries = [path for path in runnable if path.parent == ROOT / "pipelines"]
    opening = {path.name: (ast.get_docstring(trees[path]) or "").lstrip("` $\n") for path in entries}
    assert [entry for entry, text in opening.items() if not text.startswith(f"python pipelines/{entry}")] == []


def test_the_rules_catch_what_they_are_for():
    """The checks above pass on an empty house too, so they are tried on what they must refuse."""
    assert forbidden_room("storage", "execution")
    assert forbidden_room("data", "models")
    assert forbidden_room("train", "tracking")
    assert forbidden_room("tune", "pipelines")
    assert forbidden_room("heads", "models")
    assert not forbidden_room("models", "heads")
    assert not forbidden_room("evaluation", "models")
    assert not forbidden_room("pipelines", "execution")
    assert misplaced("ray.train.torch.TorchTrainer", "pipelines/full_tpo.py")
    assert misplaced("mlflow", "tpo_core/train/loop.py")
    assert misplaced("ray", "tpo_core/execution/runner.py")
    assert misplaced("ray.init", "pipelines/full_tpo.py") is None
    assert misplaced("mlflow.entities.Metric", "tpo_core/tracking/tracker.py") is None
    assert list(imports(ast.parse("def f():\n    from ray import data\n"))) == ["ray.data"]
