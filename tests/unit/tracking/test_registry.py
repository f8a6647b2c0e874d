from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tpo_core.errors import TpoError
from tpo_core.tracking.registry import Registry


@pytest.fixture
def register(registry, tmp_path):
    def one(name, fingerprint, **metrics):
        folder = tmp_path / fingerprint
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_text(fingerprint)
        return registry.register_version(
            folder,
            name,
            tags={"fingerprint": fingerprint},
            metrics=metrics,
            base_metrics={"test/qa/accuracy": 0.5},
            run_id=None,
            experiment="registry tests",
        )

    return one


def test_a_version_keeps_its_numbers_and_its_files(register, registry):
    info = register("keeps", "f1", **{"test/region/acc@0.5": 0.1 + 0.2, "test/mask/j&f": float("nan")})
    assert info.version == 1
    assert info.metrics["test/region/acc@0.5"] == 0.1 + 0.2
    assert info.metrics["test/mask/j&f"] != info.metrics["test/mask/j&f"]
    assert info.base_metrics == {"test/qa/accuracy": 0.5}
    assert info.tags == {"fingerprint": "f1"}
    assert (Path(unquote(urlparse(info.uri).path)) / "model.safetensors").read_text() == "f1"


def test_the_same_fingerprint_is_registered_once(register, registry):
    first = register("once", "f1", a=1.0)
    assert register("once", "f1", a=1.0) == first
    register("once", "f2", a=1.0)
    assert [info.version for info in registry.list("once")] == [1, 2]


def test_a_model_that_was_measured_again_carries_the_new_numbers(register, registry):
    register("again", "f1", a=1.0)
    assert register("again", "f1", a=2.0).metrics == {"a": 2.0}
    assert [info.metrics for info in registry.list("again")] == [{"a": 2.0}]


def test_aliases_move(register, registry):
    assert registry.get_alias("moves", "champion") is None
    register("moves", "f1")
    register("moves", "f2")
    assert registry.get_alias("moves", "champion") is None
    registry.set_alias("moves", "champion", 1)
    registry.set_alias("moves", "champion", 2)
    assert registry.get_alias("moves", "champion").version == 2
    registry.delete_alias("moves", "champion")
    assert registry.get_alias("moves", "champion") is None


def test_an_unknown_name_has_no_versions(registry):
    assert registry.list("nobody") == []


def test_a_registry_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TpoError, match=r"no MLflow registry answers at http://127\.0\.0\.1:9: start it"):
        Registry("http://127.0.0.1:9")
