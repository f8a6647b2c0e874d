"""Who made a result."""

import getpass
import subprocess

from tpo_core.execution import provenance


def repository(monkeypatch, path):
    """Make the module believe that it lies in the repository `path`."""
    (path / "tpo_core" / "execution").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(path / "tpo_core" / "execution" / "provenance.py"))


def git(path, *command):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", path, *identity, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_tells_changed_files(monkeypatch, tmp_path):
    repository(monkeypatch, tmp_path)
    git(tmp_path, "init", "-q")
    assert provenance.commit() is None
    (tmp_path / "x").write_text("1")
    git(tmp_path, "add", "x")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit() == head
    (tmp_path / "x").write_text("2")
    assert provenance.commit() == f"{head}-dirty"


def test_without_a_repository_the_environment_tells(monkeypatch, tmp_path):
    repository(monkeypatch, tmp_path)
    monkeypatch.delenv("TPO_COMMIT", raising=False)
    assert provenance.commit() is None
    monkeypatch.setenv("TPO_COMMIT", "abc123")
    assert provenance.commit() == "abc123"


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert provenance.describe_process()["user"].startswith("uid ")


def test_a_password_of_the_command_line_is_not_recorded(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["full_tpo.py", "--recipe", "mine", "tracking.uri=postgresql://tpo:hunter2@db/mlflow"]
    )
    argv = provenance.describe_process()["argv"]
    assert argv == ["full_tpo.py", "--recipe", "mine", "tracking.uri=postgresql://tpo:***@db/mlflow"]
