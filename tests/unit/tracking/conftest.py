import pytest

from tpo_core.tracking.promotion_log import PromotionLog
from tpo_core.tracking.registry import Registry


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    """One database for all tests, because making one takes seconds; tests use names of their own in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def registry(mlflow_uri):
    return Registry(mlflow_uri)


@pytest.fixture
def log(tmp_path):
    return PromotionLog(str(tmp_path / "promotions"))
