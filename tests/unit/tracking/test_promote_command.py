"""The command line of promotion against a real registry."""

import pytest
import yaml

from pipelines.promote import main
from tpo_core.errors import TpoError

GATE = "test/region/acc@0.5"


@pytest.fixture
def recipe(tmp_path, mlflow_uri, request):
    content = {
        "work_uri": str(tmp_path / "work"),
        "data": {"sources": [{"name": "a", "reader": "jsonl", "root": "/data", "split": "train", "part": "train"}]},
        "model": {"base": "base"},
        "stages": {
            "task_assignment": {"phases": [{"name": "p", "mixture": {"chat": 1}, "steps": 1, "micro_batch_size": 1}]}
        },
        "tracking": {"uri": mlflow_uri, "model_name": request.node.name},
        "promotion": {"gates": [{"metric": GATE, "min_value": 0.5}]},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def offer(registry, tmp_path, request):
    def one(points):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        info = registry.register_version(
            folder,
            request.node.name,
            tags={"fingerprint": str(points)},
            metrics={GATE: points},
            base_metrics={GATE: 0.0},
            run_id=None,
            experiment="promote tests",
        )
        registry.set_alias(request.node.name, "challenger", info.version)

    return one


def test_promote_refuse_and_roll_back(recipe, offer, registry, request, capsys):
    offer(0.6)
    assert main(["--recipe", recipe, "--dry-run"]) == 0
    assert "would be promoted: challenger v1 against the base model" in capsys.readouterr().out
    assert main(["--recipe", recipe]) == 0
    assert "test/region/acc@0.5      0.6000     0.0000  ok: at least 0.0000" in capsys.readouterr().out
    offer(0.55)
    assert main(["--recipe", recipe]) == 3
    out = capsys.readouterr().out
    assert "FAIL: below 0.6000 by 0.0500" in out
    assert "refused: challenger v2 against v1" in out
    offer(0.7)
    assert main(["--recipe", recipe]) == 0
    assert main(["--recipe", recipe, "--rollback"]) == 0
    assert "champion of test_promote_refuse_and_roll_back is v1 again, no longer v3" in capsys.readouterr().out
    assert registry.get_alias(request.node.name, "champion").version == 1


def test_without_a_challenger_or_a_registry(recipe, tmp_path):
    with pytest.raises(TpoError, match="has no challenger"):
        main(["--recipe", recipe, "tracking.model_name=nobody"])
    with pytest.raises(TpoError, match="there is no registry at"):
        main(["--recipe", recipe, "tracking.uri=null"])
    assert list((tmp_path / "work").glob("*")) == []
