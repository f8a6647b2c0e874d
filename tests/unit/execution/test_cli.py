"""How an entry point ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tpo_core.errors import RunFailedError, TpoError
from tpo_core.execution.cli import main_guard


@pytest.fixture(autouse=True)
def _keep_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ends(error: BaseException | None = None, code: int | None = None) -> int:
    def fn():
        if error is not None:
            raise error
        return code

    with pytest.raises(SystemExit) as caught:
        main_guard(fn)
    return caught.value.code or 0


def test_success_and_own_codes():
    assert ends() == 0
    assert ends(code=1) == 1


def test_a_user_s_mistake_is_one_line_and_2(capsys):
    assert ends(TpoError("set data.root")) == 2
    assert capsys.readouterr() == ("", "error: set data.root\n")


def test_a_run_that_failed_for_a_reason_in_words_is_one_line_and_1(capsys):
    assert ends(RunFailedError("training has diverged: lower the rates")) == 1
    assert capsys.readouterr() == ("", "error: training has diverged: lower the rates\n")


def test_a_failed_run_is_a_traceback_and_1(capsys):
    assert ends(KeyError("gone")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(capsys):
    assert ends(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from here\n"


def test_argparse_keeps_its_exit_status():
    assert ends(SystemExit(2)) == 2


@pytest.mark.parametrize("status", [None, 1])
def test_sigterm_unwinds_the_stack_and_is_143(status):
    """Whatever becomes of its SystemExit on the way."""
    changed = "" if status is None else f"    except SystemExit:\n        raise SystemExit({status}) from None\n"
    script = (
        "import os, signal\n"
        "from tpo_core.execution.cli import main_guard\n"
        "def fn():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        f"{changed}"
        "    finally:\n"
        "        print('lease given back')\n"
        "main_guard(fn)\n"
    )
    root = Path(__file__).resolve().parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "lease given back\n")
    assert done.stderr == "terminated: the same command goes on from here\n"
