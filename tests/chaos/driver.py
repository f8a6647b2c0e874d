"""python tests/chaos/driver.py OUTPUT STEPS_FOLDER: the stub on the cluster of RAY_ADDRESS, as in a pipeline."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ray

from pipelines.cluster import connect
from tests.chaos import victims
from tests.unit.train import stub
from tpo_core.execution.cli import main_guard

for module in (stub, victims):
    ray.cloudpickle.register_pickle_by_value(module)


def main() -> int:
    with connect(stub.stub_recipe()):
        script = victims.Script(Path(sys.argv[2]), pause_s=0.5)
        victims.train(Path(sys.argv[1]), script, workers=2, echo=lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    main_guard(main)
