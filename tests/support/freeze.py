"""Record what fedexp computes on this machine, and compare a later state of the code with the record.

    python tests/support/freeze.py record before.json [--root FOLDER_OF_MNIST]
    python tests/support/freeze.py check before.json [--root FOLDER_OF_MNIST]

A redesign must change no number. The record holds the model hash and the hashes of metrics.csv and
failures.csv of every strategy (plain; with dropout, stragglers, byzantine clients and partial
participation; with a BatchNorm model), every partition's hash, some ways of training, the three
backends, the lesson on MNIST where --root has it, the text of --help, and refusals. Everything goes
through the command line, so that the tool outlives the modules. Bits depend on the CPU and on the
versions of torch and NumPy: a record is good for the machine that made it, and is not committed.

`check` exits with 1 if anything differs and names it; words (help, refusals) may change on purpose.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

STRATEGIES = [
    "fedavg",
    "fedprox",
    "fedavgm",
    "fedadagrad",
    "fedadam",
    "fedyogi",
    "qfedavg",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
    "scaffold",
    "fednova",
    "local_only",
    "centralized",
]
DISTANCES = ("krum", "multikrum", "bulyan")
INLINE = "backend=inline"
PLAIN = [
    *(INLINE, "partition=dirichlet", "partition.alpha=1", "clients.num=9", "rounds=3"),
    *("training.local_epochs=1", "training.batch_size=100", "model.hidden=[16]"),
]
TROUBLE = [
    *(INLINE, "partition=dirichlet", "partition.alpha=2", "clients.num=12", "rounds=3"),
    *("clients.fraction_train=0.75", "clients.fraction_evaluate=0.5", "clients.dropout=0.1"),
    *(
        "clients.stragglers=0.5",
        "clients.byzantine.fraction=0.2",
        "clients.byzantine.kind=sign_flip",
    ),
    *("training.local_epochs=3", "training.batch_size=50", "training.learning_rate_decay=0.9"),
    *("training.max_grad_norm=1.0", "training.weight_decay=0.001", "model=logistic", "seed=3"),
]
BATCHNORM = [
    *(INLINE, "partition=iid", "partition.samples_per_client=20", "clients.num=5", "rounds=2"),
    *("model=mobilenet_v3_small", "training.local_steps=2", "training.batch_size=10"),
]
FEW = [INLINE, "rounds=2", "training.local_epochs=2"]


def _sweep(strategies: list[str], *overrides: str) -> list[str]:
    return ["-m", f"strategy={','.join(strategies)}", *overrides]


RUNS = {
    "plain": _sweep(STRATEGIES, *PLAIN),
    "trouble": _sweep(STRATEGIES, *TROUBLE),
    "batchnorm": _sweep([s for s in STRATEGIES if s not in DISTANCES], *BATCHNORM),
    "byzantine": [
        *("-m", "clients.byzantine.kind=label_flip,gaussian,sign_flip", *FEW, "partition=iid"),
        *("clients.num=5", "clients.byzantine.fraction=0.4", "clients.byzantine.scale=2"),
    ],
    "optimizers": ["-m", "training.optimizer=sgd,adam,adamw", *FEW, "training.weight_decay=0.01"],
    "momentum": ["-m", "strategy=scaffold,fednova", *FEW, "training.momentum=0,0.5"],
    "models": [
        "-m",
        "model=logistic,two_nn,cnn,lenet5",
        INLINE,
        "rounds=1",
        "training.local_steps=3",
    ],
    "resnet": [
        *("model=resnet18", INLINE, "rounds=1", "training.local_steps=1", "training.batch_size=2"),
        *("partition=iid", "partition.samples_per_client=4"),
    ],
    "noise": ["partition=feature_noise", *FEW, "clients.num=4", "clients.fraction_evaluate=1"],
    "early": [*FEW, "rounds=9", "stop.patience=1", "stop.min_delta=0.05"],
    "isolated": ["strategy=local_only", *FEW, "isolated_rounds=1", "clients.fraction_evaluate=1"],
    "full_batch": [*FEW, "training.batch_size=full", "backend.threads=2"],
    "ray": _sweep(["fedavg", "scaffold", "local_only"], *PLAIN, "backend=ray", "backend.workers=2"),
    "flower": _sweep(["fedavg", "scaffold"], *PLAIN, "backend=flower", "backend.workers=2"),
}
LESSON = ["+experiment=lesson"]
PARTITIONS = {
    "lesson": ["partition=lesson"],
    "exclude": ["partition=exclude", "partition.exclude=[[0],[1,2]]", "clients.num=2", "seed=5"],
    "iid": ["partition=iid", "clients.num=7", "partition.samples_per_client=100"],
    "dirichlet": ["partition=dirichlet", "clients.num=10", "partition.alpha=0.3"],
    "dirichlet_balanced": ["partition=dirichlet_balanced", "clients.num=10", "partition.seed=4"],
    "shards": ["partition=shards", "clients.num=20"],
    "classes": ["partition=classes", "clients.num=10"],
    "quantity": ["partition=quantity", "clients.num=10"],
    "feature_noise": ["partition=feature_noise", "clients.num=6"],
    "flwr_datasets": ["partition=flwr_datasets", "clients.num=5"],
    "flwr_shards": [
        *("partition=flwr_datasets", "partition.partitioner=DirichletPartitioner", "clients.num=5"),
        *("+partition.options.alpha=0.5", "+partition.options.partition_by=label"),
    ],
}
REFUSALS = [
    ["rounds=0", "training.batchsize=32"],
    ["clients=50"],
    ["~seed", "+unknown.key=1", "training.momentum=2"],
    ["strategy=fedavg,local_only"],
    ["-m", "strategy=fedavg,fedavgg", "training.batch_size=0"],
    ["rounds", "model.hidden=[1"],
    ["--config-dir", "absent"],
    ["clients.num=4001", "partition=iid"],
    ["clients.num=4"],
    ["partition=iid", "partition.samples_per_client=1000", "clients.num=100"],
    ["partition=classes", "partition.classes_per_client=11"],
    ["strategy=krum"],
    ["strategy=scaffold", "training.optimizer=adam"],
    ["strategy=krum", "clients.num=7", "partition=iid", "model=mobilenet_v3_small"],
    ["model.hidden=[0]"],
    ["model=resnet18", "model.groups=3"],
    ["training.amp=true", "backend=inline", "backend.device=cpu"],
    ["clients.stragglers=0.5", "training.local_epochs=1"],
    ["training.batch_size=half"],
    ["strategy.name=fedprox"],
    ["tracking.project=mine"],
    ["name=a/b"],
    ["stop.metric=f1"],
    ["clients.byzantine.kind=evil"],
    ["partition=flwr_datasets", "partition.partitioner=None"],
]


def _fedexp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedexp", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def _runs(words: list[str]) -> dict[str, object]:
    """Return the exit code, and what every run of a command came to, by the run's folder."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        where = ["hydra.sweep.dir=out", "hydra.run.dir=out"]
        done = _fedexp(root, *words, *where)
        found: dict[str, object] = {"exit": done.returncode}
        for file in sorted(root.rglob("summary.json")):
            summary = json.loads(file.read_text())
            found[str(file.parent.relative_to(root))] = {
                "status": summary["status"],
                "model": summary.get("model_sha256"),
                "final": summary.get("final"),
                "metrics": _digest(file.parent / "metrics.csv"),
                "failures": _digest(file.parent / "failures.csv"),
                "confusion": _digest(file.parent / "confusion.csv"),
                "partition": summary.get("partition_sha256"),
            }
    return found


def _partition(words: list[str]) -> str:
    with tempfile.TemporaryDirectory() as name:
        _fedexp(Path(name), "mode=partition", *words, "hydra.run.dir=out")
        content = json.loads((Path(name) / "out" / "partition.json").read_text())
        return str(content["sha256"])


def _refusal(words: list[str]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        done = _fedexp(Path(name), *words)
        written = [str(path) for path in Path(name).iterdir()]
        return {"exit": done.returncode, "lines": done.stderr.splitlines(), "written": written}


def _help() -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        return _fedexp(Path(name), "--help").stdout.splitlines()


def record(root: Path | None, only: list[str]) -> Iterator[tuple[str, object]]:
    """Run everything whose name starts with one of ``only``; yield names and what is to be kept."""
    todo: dict[str, Callable[[], object]] = {}
    for name, words in RUNS.items():
        todo[f"runs/{name}"] = partial(_runs, words)
    if root is not None:
        todo["runs/lesson"] = partial(_runs, [*LESSON, f"dataset.root={root.absolute()}"])
    for name, words in PARTITIONS.items():
        todo[f"partitions/{name}"] = partial(_partition, words)
    for words in REFUSALS:
        todo[f"refusals/{' '.join(words)}"] = partial(_refusal, words)
    todo["help"] = _help
    for name, step in todo.items():
        if name.startswith(tuple(only) or ("",)):
            print(f"  {name}", flush=True)
            yield name, step()


def differences(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """Return what is not as it was, a block of lines each."""
    found = []
    for key in sorted({*before, *now}):
        old, new = (json.dumps(side.get(key), indent=1).splitlines() for side in (before, now))
        if old != new:
            diff = difflib.unified_diff(old, new, lineterm="", n=1)
            found.append("\n".join([key, *(f"    {line}" for line in list(diff)[2:])]))
    return found


def main() -> None:
    """Record, or record again and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["record", "check"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", type=Path, help="folder of all of MNIST")
    parser.add_argument("--only", nargs="*", default=[], help="names to start with, as runs/plain")
    args = parser.parse_args()
    if args.what == "check" and not args.file.is_file():
        parser.error(f"{args.file} is not there: make it with record, by the code of before")
    before = json.loads(args.file.read_text()) if args.file.is_file() else {}
    now: dict[str, object] = {}
    for name, found in record(args.root, args.only):
        now[name] = found
        if args.what == "record":  # at once: a record that is cut off keeps what it has
            args.file.write_text(json.dumps({**before, **now}, indent=1))
    if args.what == "record":
        return
    if args.only:
        before = {key: before.get(key) for key in now}
    changed = differences(before, now)
    print("\n".join(changed) or "nothing differs")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
