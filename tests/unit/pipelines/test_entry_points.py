"""A script finds the platform wherever it is started from: its own folder is on the path, the one above is not."""

import ast
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parents[3] / "pipelines"
SCRIPTS = [path for path in sorted(PIPELINES.glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_path_is_set_before_the_platform_is_imported(script):
    body = ast.parse(script.read_text()).body
    ours = [
        node.lineno
        for node in body
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in ("tpo_core", "pipelines")
    ]
    paths = [node.lineno for node in body if ast.unparse(node).startswith("sys.path.insert(0, ")]
    assert paths, f"python pipelines/{script.name} cannot import tpo_core"
    assert paths[0] < min(ours)
