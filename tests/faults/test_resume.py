"""A run that was killed goes on and ends with the same bits, or is refused in a line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.helpers import metrics, summary
from support.resuming import SMALL, assert_same_run, killed_at, orphan, resumed, run_small

from fedexp import resume, strategies
from fedexp.analysis.results import load
from fedexp.config.callbacks import add_to_manifest, manifest_of
from fedexp.config.composition import Job, compose_config
from fedexp.core import checkpoints, owner
from fedexp.core.state import pack, unpack
from fedexp.federation.events import RunInfo

Capture = pytest.CaptureFixture[str]

MANY = ("clients=cross_silo", "partition=dirichlet", "clients.num=8")
TROUBLES = (
    *MANY,
    "clients.num=16",
    "clients.fraction_train=0.75",
    "clients.fraction_evaluate=0.5",
    "clients.dropout=0.1",
    "clients.stragglers=0.4",
    "clients.byzantine.fraction=0.2",
    "clients.byzantine.kind=gaussian",
    "metrics=[accuracy,loss,macro_f1]",
)
QUICK = ("scaffold",)
"""It has states of clients and of the server: the others are tried in the slow set."""

slow = pytest.mark.slow  # half a second to two each, and there are many


def _strategies() -> list[object]:
    names = strategies.REGISTRY.choices()
    return [n if n in QUICK else pytest.param(n, marks=slow) for n in names]


OF_LAYERS = ("model=mlp", "model.hidden=[8]")
OTHER_MODELS = {
    **dict.fromkeys(("fedper", "fedrep", "fedbabu"), OF_LAYERS),
    "fedproto": (*OF_LAYERS, "clients.byzantine.kind=label_flip"),
    "fedbn": ("model=mobilenet_v3_small", "partition=iid", "partition.samples_per_client=32"),
}
"""Of strategies that the model of the other runs has too few layers for; and one sends no weights."""


@pytest.mark.parametrize("strategy", _strategies())
def test_every_strategy_goes_on_to_the_bit(tmp_path: Path, capsys: Capture, strategy: str) -> None:
    words = (f"strategy={strategy}", *TROUBLES, *OTHER_MODELS.get(strategy, ()))
    whole, cut = killed_at("told 3", tmp_path, *words)
    assert load(cut).runs["status"].tolist() == ["killed"]
    code, said, _ = resumed(capsys, cut)
    assert code == 0
    assert "goes on after round 2" in said
    assert_same_run(whole, cut)


@pytest.mark.parametrize("strategy", ["fedadam", "fedavgm", "scaffold", "fednova"])
@pytest.mark.slow
def test_buffers_kept_apart_go_on_to_the_bit(
    tmp_path: Path, capsys: Capture, strategy: str
) -> None:
    few = ("partition=iid", "partition.samples_per_client=32", "clients.num=4")
    model = ("model=mobilenet_v3_small", f"strategy={strategy}", "rounds=3")
    whole, cut = killed_at("told 2", tmp_path, *few, *model)
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)


@pytest.mark.parametrize(
    "moment",
    [pytest.param(m, marks=slow) for m in ("begun", "told 0", "told 1", "kept 1", "told 4")]
    + ["kept 4"],
)
def test_every_moment_will_do(tmp_path: Path, capsys: Capture, moment: str) -> None:
    whole, cut = killed_at(moment, tmp_path, "strategy=fedavgm")
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)
    assert not (cut / owner.FILE).exists()
    assert sorted(p.name for p in cut.iterdir()) == sorted(
        [*(p.name for p in whole.iterdir()), "run.log"]
    )


@slow
def test_patience_goes_on_where_it_stood(tmp_path: Path, capsys: Capture) -> None:
    stop = ("stop.patience=3", "stop.min_delta=0.5", "rounds=20", "checkpoint.every=2")
    whole, cut = killed_at("told 3", tmp_path, *stop)
    assert summary(whole)["stopped_early"]
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)
    # More rounds change nothing: a run of 30 would have stopped there, too.
    assert resumed(capsys, cut, "rounds=30")[0] == 0
    assert_same_run(whole, cut)


@pytest.mark.parametrize(
    ("strategy", "by", "moment"),
    [
        ("fedavg", "both", "told 3"),
        *(pytest.param("fedavg", by, "kept 2", marks=slow) for by in ("server", "clients")),
        *(pytest.param("local_only", by, "told 3", marks=slow) for by in ("server", "both")),
    ],
)
def test_what_was_selected_goes_on_to_the_bit(
    tmp_path: Path, capsys: Capture, strategy: str, by: str, moment: str
) -> None:
    told = (f"strategy={strategy}", "dataset.validation=0.1", f"dataset.validation_by={by}")
    # Steps so large that an early round is the best one, which only the checkpoint still has.
    wild = ("training.learning_rate=3", "save_every=2", "stop.patience=4", "stop.metric=loss")
    whole, cut = killed_at(moment, tmp_path, *told, *wild)
    assert summary(whole)["best"]["round"] < 3
    code, _, _ = resumed(capsys, cut)
    assert code == 0
    assert_same_run(whole, cut)
    names = {path.name for path in cut.rglob("*.safetensors")}
    assert names >= {"best.safetensors", "round-2.safetensors", "round-4.safetensors"}


@pytest.mark.parametrize(
    ("strategy", "moment"),
    [
        ("local_only", "told 3"),
        *(pytest.param(name, "kept 3", marks=slow) for name in ("fedavg", "finetune", "apfl")),
    ],
)
def test_models_that_nobody_has_tested_yet_are_tested_as_before(
    tmp_path: Path, capsys: Capture, strategy: str, moment: str
) -> None:
    sampled = ("clients.num=6", "partition=iid", "clients.fraction_train=0.5")
    told = (f"strategy={strategy}", "rounds=6", "evaluate_every=4", "checkpoint.every=1", *sampled)
    whole, cut = killed_at(moment, tmp_path, *told)
    rounds = pd.read_csv(whole / "metrics.csv").query("split == 'test'")["round"]
    assert set(rounds) == {0, 4, 6}
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)


@slow
@pytest.mark.parametrize("moment", ["told 2", "kept 4"])
@pytest.mark.parametrize("option", ["rounds", "isolated_rounds"])
def test_more_rounds_are_those_of_a_longer_run(
    tmp_path: Path, capsys: Capture, moment: str, option: str
) -> None:
    alone = ("strategy=local_only", "isolated_rounds=4")
    more = alone if option == "isolated_rounds" else ("clients.fraction_evaluate=1",)
    _, cut = killed_at(moment, tmp_path, *more)
    longer = run_small(tmp_path / "longer", *more, f"{option}=6")
    assert resumed(capsys, cut, f"{option}=6")[0] == 0
    assert_same_run(longer, cut)


@slow
def test_a_complete_run_of_few_rounds_goes_on(tmp_path: Path, capsys: Capture) -> None:
    few, many = run_small(tmp_path / "few"), run_small(tmp_path / "many", "rounds=6")
    before = {path.name: path.read_bytes() for path in few.iterdir() if path.is_file()}
    code, said, _ = resumed(capsys, few)
    assert (code, "complete already" in said) == (0, True)
    assert {p.name: p.read_bytes() for p in few.iterdir() if p.is_file()} == before
    assert resumed(capsys, few, "rounds=6")[0] == 0
    assert_same_run(many, few)


@pytest.mark.slow  # Ray's start
@pytest.mark.parametrize(
    ("begun", "goes_on"), [("ray", "ray"), ("ray", "inline"), ("inline", "flower")]
)
def test_a_run_may_go_on_elsewhere(
    tmp_path: Path, capsys: Capture, begun: str, goes_on: str
) -> None:
    on = (f"backend={begun}", *([] if begun == "inline" else ["backend.workers=1"]))
    whole, cut = killed_at("told 3", tmp_path, *TROUBLES, "strategy=scaffold", *on)
    assert resumed(capsys, cut, f"backend={goes_on}")[0] == 0
    assert_same_run(whole, cut)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: Capture
) -> None:
    whole, cut = killed_at("told 4", tmp_path)
    damaged = cut / checkpoints.FOLDER / "round-3.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    code, said, complaints = resumed(capsys, cut)
    assert (code, "after round 2" in said, str(damaged) in complaints) == (0, True, True)
    assert_same_run(whole, cut)


@slow
def test_without_a_checkpoint_a_run_begins_anew(tmp_path: Path, capsys: Capture) -> None:
    whole, cut = killed_at("told 3", tmp_path)
    for path in (cut / checkpoints.FOLDER).iterdir():
        path.write_bytes(b"")
    code, _, complaints = resumed(capsys, cut)
    assert (code, len(complaints.splitlines())) == (0, 2)
    assert_same_run(whole, cut)
    left = sorted(path.name for path in (cut / checkpoints.FOLDER).iterdir())
    assert left == ["round-3.safetensors", "round-4.safetensors"]


@pytest.fixture(scope="module")
def left_in_round_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a run leaves that is killed in its last round."""
    return killed_at("told 3", tmp_path_factory.mktemp("killed"), "rounds=3")[1]


@pytest.fixture
def cut(tmp_path: Path, left_in_round_3: Path) -> Path:
    """Return a copy of it, to be spoilt."""
    return Path(shutil.copytree(left_in_round_3, tmp_path / "cut"))


def _edited(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _with_identity(folder: Path, part: str, name: str | None, value: str) -> None:
    """Let the checkpoints say that the run was begun on other ground."""
    for path in (folder / checkpoints.FOLDER).iterdir():
        state = unpack(path.read_bytes())
        if name is None:
            state["identity"][part] = value
        else:
            state["identity"][part][name] = value
        path.write_bytes(pack(state))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: _edited(f, "config.yaml", "batch_size: 16", "batch_size: 8"), "batch_size"),
        (lambda f: _edited(f, "config.yaml", "threads: 1", "threads: 2"), "backend.threads"),
        (lambda f: _edited(f, "metrics.csv", "\n1,", "\n7,"), "metrics.csv"),
        (lambda f: (f / "metrics.csv").unlink(), "metrics.csv"),
        (lambda f: _with_identity(f, "packages", "torch", "1.0"), "torch was 1.0"),
        (lambda f: _with_identity(f, "data", None, "0"), "mnist5k"),
        (lambda f: _with_identity(f, "device", None, "tpu"), "tpu"),
        (lambda f: (f / "config.yaml").write_text("a: ["), "config.yaml"),
    ],
)
def test_what_would_give_other_numbers_is_refused(
    cut: Path, capsys: Capture, change: object, named: str
) -> None:
    assert callable(change)
    change(cut)
    before = {path.name: path.read_bytes() for path in cut.iterdir() if path.is_file()}
    code, _, complaints = resumed(capsys, cut)
    assert code == 2
    (line,) = complaints.splitlines()
    assert named in line
    before.pop(owner.FILE)
    assert {p.name: p.read_bytes() for p in cut.iterdir() if p.is_file()} == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["training.batch_size=8"], "training.batch_size"),
        (["seed=1"], "seed"),
        (["backend.device=cpu"], "backend.device"),
        (["rounds=1"], "rounds=1"),
        (["rounds=none"], "rounds"),
        (["rounds"], "rounds"),
        (["rounds=5,6"], "rounds"),
        (["backend=mars"], "backend"),
        (["backend.speed=3"], "speed"),
    ],
)
def test_what_may_not_be_changed_is_refused(
    cut: Path, capsys: Capture, words: list[str], named: str
) -> None:
    code, _, complaints = resumed(capsys, cut, *words)
    assert code == 2
    assert len(complaints.splitlines()) == 1
    assert named in complaints


def test_neither_a_run_nor_a_sweep(tmp_path: Path, capsys: Capture) -> None:
    code, _, complaints = resumed(capsys, tmp_path / "absent")
    assert (code, len(complaints.splitlines())) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@slow
def test_a_run_that_is_being_written_is_refused(tmp_path: Path, capsys: Capture) -> None:
    _, cut = killed_at("kept 2", tmp_path)
    hold = owner.take(cut)
    code, _, complaints = resumed(capsys, cut)
    assert (code, len(complaints.splitlines())) == (2, 1)
    hold.give_back()
    assert resumed(capsys, cut)[0] == 0


def _sweep(folder: Path, *seeds: int) -> Path:
    """Leave a sweep that was killed in its second job: one complete, one begun, the others not."""
    sweep = folder / "a sweep=1"
    jobs = []
    for number, seed in enumerate(seeds):
        lines = [*SMALL, f"seed={seed}"]
        where = sweep / f"{number}-fedavg-s{seed}"
        jobs.append(Job(lines, compose_config(lines), folder=where, sweep=sweep))
    add_to_manifest(sweep, manifest_of(jobs, sweep, {}))
    first, second = jobs[0].folder, jobs[1].folder
    assert first is not None
    assert second is not None
    run_small(first, f"seed={seeds[0]}")
    _, cut = killed_at("told 2", folder / "second", f"seed={seeds[1]}")
    shutil.copytree(cut, second)
    return sweep


@slow
def test_a_sweep_goes_on(tmp_path: Path, capsys: Capture) -> None:
    sweep = _sweep(tmp_path, 0, 1, 2)
    first = (sweep / "0-fedavg-s0" / "summary.json").stat().st_mtime_ns
    code, said, complaints = resumed(capsys, sweep)
    assert (code, complaints) == (0, "")
    assert "1 of 3 runs are complete, 2 to go" in said
    assert (sweep / "0-fedavg-s0" / "summary.json").stat().st_mtime_ns == first
    for number in (1, 2):
        alone = run_small(tmp_path / f"alone-{number}", f"seed={number}")
        assert_same_run(alone, sweep / f"{number}-fedavg-s{number}")
    assert load(sweep).completed == [0, 1, 2]
    row = next(line for line in said.splitlines() if line.startswith("fedavg "))
    assert row.split()[1] == "3"
    code, said, _ = resumed(capsys, sweep, "rounds=5")
    assert (code, "0 of 3 runs are complete" in said) == (0, True)
    assert set(load(sweep).runs["rounds"]) == {5}


@slow
def test_a_run_that_went_on_while_its_sweep_waited_is_as_it_is_by_then(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, look, longer = _sweep(tmp_path, 0, 1), resume._refuse_other_ground, list[bytes]()
    begun = sweep / "1-fedavg-s1"

    def looked_at(run: RunInfo) -> None:
        look(run)
        monkeypatch.undo()  # once
        assert resumed(capsys, begun, "rounds=5")[0] == 0  # somebody goes on with this one alone
        longer.append((begun / "metrics.csv").read_bytes())
        owner.reserve(sweep)  # that somebody is another process, and did not give it back

    monkeypatch.setattr(resume, "_refuse_other_ground", looked_at)
    assert resumed(capsys, sweep)[0] == 0
    assert [(begun / "metrics.csv").read_bytes()] == longer
    assert not (begun / owner.FILE).exists()
    assert load(sweep).runs["rounds"].tolist() == [4, 5]


@slow
def test_in_a_sweep_everything_that_is_wrong_is_named(tmp_path: Path, capsys: Capture) -> None:
    sweep = _sweep(tmp_path, 0, 1)
    _with_identity(sweep / "1-fedavg-s1", "packages", "numpy", "1.0")
    _with_identity(sweep / "1-fedavg-s1", "data", None, "0")
    code, _, complaints = resumed(capsys, sweep)
    assert code == 2
    assert len(complaints.splitlines()) == 2
    hold = owner.take(sweep)
    code, _, complaints = resumed(capsys, sweep)
    assert (code, len(complaints.splitlines())) == (2, 1)
    hold.give_back()
    (sweep / "sweep.json").write_text("{")
    code, _, complaints = resumed(capsys, sweep)
    assert (code, len(complaints.splitlines())) == (2, 1)


def test_a_sweep_that_chose_its_runs_says_what_can_be_done(tmp_path: Path, capsys: Capture) -> None:
    run_small(tmp_path / "study" / "0-fedavg-s0")
    code, _, complaints = resumed(capsys, tmp_path / "study")
    assert code == 2
    assert "one by one" in complaints


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("metrics.csv", False),
        pytest.param("metrics.csv", True, marks=slow),
        pytest.param("timings.csv", False, marks=slow),
    ],
)
def test_a_file_that_vanishes_in_mid_run_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cut: bool
) -> None:
    save = checkpoints.Checkpoints.save

    def vandal(self: checkpoints.Checkpoints, server_round: int, state: object) -> None:
        assert callable(state)
        save(self, server_round, state)
        if server_round == 3:
            path = tmp_path / "run" / name
            path.write_bytes(path.read_bytes()[:-4]) if cut else path.unlink()

    monkeypatch.setattr(checkpoints.Checkpoints, "save", vandal)
    with pytest.raises(Exception, match=name):
        run_small(tmp_path / "run")
    found = summary(tmp_path / "run")
    assert (found["status"], name in found["error"]) == ("failed", True)


def test_the_summary_counts_the_rows(tmp_path: Path) -> None:
    folder = run_small(tmp_path / "run")
    assert summary(folder)["metrics_csv"]["rows"] == len(metrics(folder))
    (folder / "metrics.csv").write_bytes((folder / "metrics.csv").read_bytes()[:-1] + b"9\n")
    assert load(folder).runs["status"].tolist() == ["unreadable"]


def test_a_state_holds_all_that_is_needed(tmp_path: Path) -> None:
    folder = run_small(tmp_path / "run", "strategy=scaffold", *MANY)
    state, problems = checkpoints.latest(folder)
    assert state is not None
    assert problems == []
    assert set(state["clients"]) == set(range(8))
    assert all(isinstance(array, np.ndarray) for array in state["weights"].values())
    assert state["files"]["metrics.csv"]["rows"] <= summary(folder)["metrics_csv"]["rows"]
    assert state["identity"]["options"]["strategy.name"] == "scaffold"
    assert state["round"] == 4


@slow
def test_no_checkpoints_where_none_are_wanted(tmp_path: Path, capsys: Capture) -> None:
    whole, cut = killed_at("told 3", tmp_path, "checkpoint.every=0")
    assert not (cut / checkpoints.FOLDER).exists()
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)
    code, _, complaints = resumed(capsys, whole, "rounds=6")
    assert (code, len(complaints.splitlines())) == (2, 1)


def test_orphans_are_orphans(tmp_path: Path) -> None:
    hold = owner.take(tmp_path)
    assert owner.is_owned(tmp_path)
    orphan(tmp_path)
    assert not owner.is_owned(tmp_path)
    hold.give_back()


@slow
def test_dashboards_have_every_round_once(tmp_path: Path, capsys: Capture) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = ("tracking.tensorboard=true", "tracking.wandb=true", "tracking.mode=offline")
    whole, cut = killed_at("told 3", tmp_path, *trackers)
    assert resumed(capsys, cut)[0] == 0
    assert_same_run(whole, cut)
    curves = {}
    for folder in (whole, cut):
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        curves[folder] = [(e.step, e.value) for e in events.Scalars("global/accuracy")]
    assert curves[whole] == curves[cut]
    assert [step for step, _ in curves[cut]] == [0, 1, 2, 3, 4]
    ids = []
    for folder in (whole, cut):
        state, _ = checkpoints.latest(folder)
        assert state is not None
        ids.append(state["trackers"]["W&B"])
    assert ids[0] == ids[1]
    names = sorted(path.name for path in (cut / "wandb").glob("*offline-run-*"))
    assert [name.endswith(ids[0]) for name in names] == [True, True]
    assert [name.startswith("before-resuming-") for name in names] == [True, False]
