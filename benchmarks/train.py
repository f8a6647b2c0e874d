"""python benchmarks/train.py [--only NAME ...] [--rounds N]

Measures the training engine on random models of the LLaVA-OneVision architecture with two ranks on this machine: what
Ray Train, tracking and checkpoints cost a step, how long a killed worker costs, and what each strategy needs of memory.
Contenders take turns; a ratio is of one turn, the table gives the median and the range.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tiny_base import write_base
from benchmarks.train_job import Setting, build
from benchmarks.train_read import Clock, checkpoint_pauses, held, mean_step_s, median_step_s, peaks_mib, restart_s

Line = tuple[str, str, str]
ROOT = Path(__file__).resolve().parents[1]


def by_torchrun(setting: Setting) -> Setting:
    """Runs the job's ranks as torchrun starts them, and waits."""
    setting.folder.mkdir(parents=True)
    (setting.folder / "setting.pickle").write_bytes(pickle.dumps(setting))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setting.workers}"]
    command = [sys.executable, *launch, str(ROOT / "benchmarks/train_job.py"), str(setting.folder)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"})
    return setting


def by_ray(setting: Setting) -> Setting:
    """Runs the job by Ray Train on the Ray that is up, and waits."""
    from tpo_core.train.ray_trainer import run_phase

    setting.folder.mkdir(parents=True)
    job = setting.job()
    run_phase(
        job.recipe, setting.stage, job.phase, shards_uri="none", init_uri=setting.base, output=job.output,
        open_tracker=setting.sink, resume=False, echo=lambda line: None, build=partial(build, setting),
    )  # fmt: skip
    return setting


def start_ray() -> None:
    import ray

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)


CLOCKS: dict[Clock, str] = {"time": "step", "cpu": "CPU time of the training process a step"}


GPU_WAIT_S = 0.4  # before each of two micro-batches: a third or more of a step, in which Ray finds what it needs


def launcher(folder: Path, rounds: int) -> Iterator[Line]:
    """The same loop started by torchrun and by Ray Train, whose own processes need a core now and then: with one worker
    they have one to themselves where there are two, with two workers they take from the loop, unless it leaves them
    something, as one does that waits for GPUs. The CPU time says what the loop itself does more."""
    start_ray()
    base = str(write_base(folder / "base", "small"))
    plain = Setting(base, folder, kinds=("region", "region"), workers=1)
    loops = {
        "one worker": plain,
        "two workers": replace(plain, workers=2),
        f"two workers that wait for {2 * GPU_WAIT_S:g} s of a step": replace(plain, workers=2, idle_s=GPU_WAIT_S),
    }
    for number, (name, setting) in enumerate(loops.items()):
        pairs = []
        for turn in range(rounds):
            ours = by_ray(replace(setting, folder=folder / f"ray-{number}-{turn}"))
            pairs.append((ours, by_torchrun(replace(setting, folder=folder / f"torchrun-{number}-{turn}"))))
        seconds = statistics.median(median_step_s(other, "time") for _, other in pairs)
        for clock, what in CLOCKS.items():
            ratios = [median_step_s(ours, clock) / median_step_s(other, clock) - 1 for ours, other in pairs]
            yield f"{what}, Ray Train against torchrun, {name} ({seconds:.2f} s a step)", percent(ratios), "< 2 %"


def overhead(folder: Path, rounds: int) -> Iterator[Line]:
    """MLflow and checkpoints at the intervals of the recipe `quickstart`."""
    base = str(write_base(folder / "base", "small"))
    plain = Setting(base, folder, kinds=("region", "region"), workers=1, steps=110)
    contenders = {
        "without": replace(plain, log_every=plain.steps),
        "with MLflow every 10 steps and a checkpoint every 50": replace(
            plain, mlflow=f"sqlite:///{folder}/mlflow.db", checkpoint_every=50
        ),
    }
    turns = [
        {name: by_torchrun(replace(each, folder=folder / f"{turn}-{name}")) for name, each in contenders.items()}
        for turn in range(rounds)
    ]
    name = list(contenders)[1]
    for clock, what in CLOCKS.items():
        ratios = [mean_step_s(turn[name], clock) / mean_step_s(turn["without"], clock) - 1 for turn in turns]
        yield f"{what} {name}", percent(ratios), "< 3 %"


def dead_servers(folder: Path, rounds: int) -> Iterator[Line]:
    """How long the loop is held, every 10 steps, by an MLflow server that refuses, and by one that takes calls and
    never answers. The calls are timed themselves: they take less than two runs differ by."""
    base = str(write_base(folder / "base", "small"))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody looks whether somebody has called
        for name, port in {"refuses": 9, "never answers": silent.getsockname()[1]}.items():
            setting = Setting(base, folder, kinds=("region", "region"), workers=1, mlflow=f"http://127.0.0.1:{port}")
            runs = [by_torchrun(replace(setting, folder=folder / f"{turn}-{port}")) for turn in range(rounds)]
            shares = [held(run) for run in runs]
            shown = [f"{100 * share:.4f}" for share in shares]
            yield f"time of a step that an MLflow server which {name} takes", spread(shown, shares, "%"), "< 1 %"


def checkpoints(folder: Path, rounds: int) -> Iterator[Line]:
    """How long the loop stands still for a checkpoint."""
    base = str(write_base(folder / "base", "wide"))
    pauses = [checkpoint_pauses(base, folder / str(turn)) for turn in range(rounds)]
    size_mib, sync_s = pauses[0].size_mib, statistics.median(each.synchronous_s for each in pauses)
    yield f"a checkpoint of {size_mib:.0f} MiB, written while the loop waits", f"{sync_s:.2f} s", ""
    yield "pause of an asynchronous one", percent([e.asynchronous_s / e.synchronous_s for e in pauses]), "< 10 %"


def restart(folder: Path, rounds: int) -> Iterator[Line]:
    """From kill -9 of a worker to the first step of the next attempt."""
    start_ray()
    setting = Setting(str(write_base(folder / "base", "small")), folder, steps=12, checkpoint_every=5, kill_at=8)
    took_s = [restart_s(by_ray(replace(setting, folder=folder / str(turn)))) for turn in range(rounds)]
    yield "from kill -9 of a worker to the first new step", spread([f"{each:.1f}" for each in took_s], took_s, "s"), ""


# glibc keeps what was freed in blocks below a limit that it raises up to 32 MiB; so it is given back as a GPU's is.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


def memory(folder: Path, rounds: int) -> Iterator[Line]:
    """Peak resident memory of the larger of two ranks, stage multitask, where the vision tower trains too."""
    base = str(write_base(folder / "base", "wide"))
    strategies = ("ddp", "zero2", "zero3", "fsdp2")
    plain = Setting(base, folder, kinds=("region", "region"), stage="multitask", steps=4)
    os.environ.update(GIVEN_BACK)
    done = {name: by_torchrun(replace(plain, folder=folder / name, strategy=name)) for name in strategies}
    for of, what in (("steps", "in steps"), ("whole", "with loading and export")):
        peaks = {name: max(peaks_mib(setting, of)) for name, setting in done.items()}
        for name, peak in peaks.items():
            yield f"peak memory of a rank {what}, {name}", f"{peak:.0f} MiB, {peak / peaks['ddp']:.2f} of ddp", ""


BENCHES: dict[str, Callable[[Path, int], Iterator[Line]]] = {
    "launcher": launcher, "overhead": overhead, "dead_servers": dead_servers, "checkpoints": checkpoints,
    "restart": restart, "memory": memory,
}  # fmt: skip


def percent(values: list[float]) -> str:
    """Median and range of fractions."""
    return spread([f"{100 * value:+.1f}" for value in values], values, "%")


def spread(shown: list[str], values: list[float], unit: str) -> str:
    order = sorted(range(len(values)), key=values.__getitem__)
    low, middle, high = shown[order[0]], shown[order[len(order) // 2]], shown[order[-1]]
    return f"{middle} {unit} ({low} - {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="which to run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    args = parser.parse_args()
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"})
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), load average {os.getloadavg()[0]:.1f} at the start\n")
    print("| what | measured | asked |\n|---|---|---|")
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
            for what, measured, asked in BENCHES[name](Path(folder), args.rounds):
                print(f"| {what} | {measured} | {asked} |", flush=True)
    print(f"\nload average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
