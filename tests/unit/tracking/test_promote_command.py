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
    def one(points, fingerprint=None, alias="challenger"):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        info = registry.register_version(
            folder,
            request.node.name,
            tags={"fingerprint": fingerprint or str(points)},
            metrics={} if points is None else {GATE: points},
            base_metrics=None if points is None else {GATE: 0.0},
            run_id=None,
            experiment="promote tests",
        )
        registry.set_alias(request.node.name, alias, info.version)

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


def test_a_version_without_metrics_is_refused(recipe, offer, capsys):
    offer(None)
    assert main(["--recipe", recipe]) == 3
    assert "FAIL: challenger: not measured" in capsys.readouterr().out


def test_a_model_whose_alias_does_not_exist(recipe, offer, registry, request):
    offer(0.6, alias="another")
    with pytest.raises(TpoError, match="has no challenger: train and register one"):
        main(["--recipe", recipe])
    assert registry.get_alias(request.node.name, "champion") is None


def test_an_alias_that_was_moved_by_hand_is_told_whatever_comes_of_it(recipe, offer, registry, request, capsys):
    name = request.node.name
    offer(0.6)
    main(["--recipe", recipe])
    offer(0.55, alias="champion")
    note = "note: alias champion was moved by hand to v2, the log says v1: --rollback puts it back"
    capsys.readouterr()
    assert main(["--recipe", recipe, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert note in out
    assert f"champion of {name} is v1 already: its alias would be put back" in out
    registry.delete_alias(name, "challenger")
    with pytest.raises(TpoError, match="has no challenger"):
        main(["--recipe", recipe])
    assert note in capsys.readouterr().out
    assert main(["--recipe", recipe, "--rollback"]) == 0
    out = capsys.readouterr().out
    assert note in out
    assert f"rolled back: champion of {name} is v1 again, no longer v2" in out
    assert registry.get_alias(name, "champion").version == 1


def test_a_champion_that_was_measured_again_is_judged_and_explained(recipe, offer, request, capsys):
    explain = ["--recipe", recipe, "--explain", request.node.name, "--version", "1"]
    offer(0.6, "f1")
    main(explain)
    assert "promoted  never" in capsys.readouterr().out
    main(["--recipe", recipe])
    capsys.readouterr()
    main(explain)
    assert "on these numbers" in capsys.readouterr().out
    offer(0.4, "f1")
    assert main(["--recipe", recipe]) == 3
    out = capsys.readouterr().out
    assert "note: champion v1 was measured again since it was judged" in out
    assert "refused: champion v1 against the base model" in out
    main(explain)
    out = capsys.readouterr().out
    assert f"{GATE}  0.4000" in out
    assert f"{GATE}  0.6000" in out[out.index("on other numbers") :]
    offer(0.7, "f1")
    assert main(["--recipe", recipe]) == 0
    assert "confirmed: champion v1 against the base model" in capsys.readouterr().out
