"""Every metric has a scorer that teaches what it reads, and the command imports only the one that it runs."""

import subprocess
import sys

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import registry
from tpo_core.metrics.score import main

LIST_SCORERS = """
import sys
from tpo_core.metrics.score import main
try:
    main(["didemo", "--help"])
except SystemExit:
    pass
names = [name for name in sys.modules if name.startswith("tpo_core.metrics.scorers.")]
print(names, "torch" in sys.modules, "ray" in sys.modules)
"""


@pytest.mark.parametrize("metric", registry.METRICS)
def test_each_metric_teaches_its_files(metric, capsys):
    one = registry.scorer(metric)
    assert one.implementations
    assert "--ground-truth" in one.reads
    assert "--predictions" in one.reads
    with pytest.raises(SystemExit) as stop:
        main([metric, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert one.reads.splitlines()[0] in out
    assert all(f"--{option.name.replace('_', '-')}" in out for option in one.options)


def test_only_the_scorer_that_is_asked_for_is_imported():
    done = subprocess.run([sys.executable, "-c", LIST_SCORERS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['tpo_core.metrics.scorers.didemo'] False False"


def test_an_option_that_is_none_is_named(tmp_path):
    with pytest.raises(TpoError, match="didemo has no option 'nms'"):
        registry.score("didemo", tmp_path, tmp_path, nms=0.5)
    with pytest.raises(TpoError, match="no such file or folder"):
        registry.score("didemo", tmp_path / "x", tmp_path)


def test_an_option_of_another_type_is_one_line(tmp_path, capsys):
    words = ["tacos", "--ground-truth", str(tmp_path), "--predictions", str(tmp_path), "--nms", "much"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "argument --nms: invalid float value: 'much'; see python -m tpo_core.metrics.score tacos --help" in err
    assert err.count("\n") == 1
