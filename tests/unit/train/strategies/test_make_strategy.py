import subprocess
import sys

import pytest

from tpo_core.train.strategies.registry import make_strategy
from tpo_core.train.strategies.replicated import Replicated


@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3", "fsdp2"])
def test_one_process_has_nothing_to_cut_up(name):
    assert isinstance(make_strategy(name), Replicated)


def test_deepspeed_is_not_imported_before_it_is_chosen():
    code = "import sys, tpo_core.train.strategies.registry; assert 'deepspeed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
