"""Three hospitals whose files nobody else sees: whole runs through a deployment's grid, here."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from flwr.app import Context, Error, Message, RecordDict
from support.bad_replies import BYTES, METRICS, WEIGHTS
from support.documents import ROOT
from support.helpers import flattened, metrics, summary

from fedexp.analysis.comparison import compare
from fedexp.analysis.report import render
from fedexp.analysis.results import load
from fedexp.backends import asking, deployment, node, node_grid, sending
from fedexp.backends.asking import survey_through
from fedexp.backends.flower_app import app_files
from fedexp.backends.node import SuperNodeApp
from fedexp.config.composition import plan
from fedexp.config.flat import flat, from_flat
from fedexp.config.saved import saved_config
from fedexp.config.schema import Config
from fedexp.core.options import ConfigError, FedexpError
from fedexp.data.agreement import Asked
from fedexp.datasets.on_nodes import OnNodes
from fedexp.experiment import run_experiment
from fedexp.federation.events import RunInfo
from fedexp.flower.internals import identify
from fedexp.flower.messages import Array
from fedexp.surveying import preset, write_survey

HOSPITALS = ROOT / "docs" / "hospitals"
OWNERS = ("north", "river", "valley")
ASKED = Asked(target="outcome")
SHORT = ("partition=given", "model=logistic", "rounds=2", "training.local_steps=3", "seed=1")


class Node:
    """A SuperNode: a new program for every message, which reads its files anew."""

    def __init__(self, number: int, held: dict[str, Any]) -> None:
        self.number, self.held, self.state = number, held, RecordDict()

    def answer(self, message: Message, run_config: dict[str, Any]) -> Message:
        context = Context(1, self.number, dict(self.held), self.state, run_config)
        try:
            reply = SuperNodeApp()(message, context)
        except Exception as error:  # as Flower does
            reply = Message(Error(2, str(error)), reply_to=message)
        self.state = context.state
        return reply


class Grid:
    """Stands in for Flower's grid; keeps all that nodes said."""

    def __init__(self, folder: Path = HOSPITALS, owners: Sequence[str] = OWNERS) -> None:
        identify(1)
        # Numbers say nothing of the order of clients.
        self.nodes = {
            30 - k: Node(30 - k, {"data": str(folder / f"{name}.csv")})
            for k, name in enumerate(owners)
        }
        self.run_config: dict[str, Any] = {}
        self.gone: set[int] = set()
        self._replies: dict[str, Message] = {}
        self._count = 0

    def get_node_ids(self) -> list[int]:
        return sorted(self.nodes)

    def push_messages(self, messages: list[Message]) -> list[str]:
        keys = []
        for message in messages:
            self._count += 1
            key, number = str(self._count), message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = key
            if number not in self.gone:
                self._replies[key] = self.nodes[number].answer(message, self.run_config)
            keys.append(key)
        return keys

    def pull_messages(self, keys: list[str]) -> list[Message]:
        return [self._replies.pop(key) for key in keys if key in self._replies]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PULL_INTERVAL", 0.005)
    known: dict[str, Config] = {}

    def once(
        options: dict[str, Any],
    ) -> Config:  # reading a configuration takes a third of a second
        key = json.dumps(options)
        if key not in known:
            known[key] = from_flat(options)
        return known[key]

    monkeypatch.setattr(node, "from_flat", once)


def _survey(grid: Grid, asked: Asked = ASKED) -> OnNodes:
    found = survey_through(grid, len(grid.nodes), asked, 5.0, lambda line: None)  # type: ignore[arg-type]
    return OnNodes(
        target=asked.target,
        predict=asked.predict,
        ignore=list(asked.ignore),
        test_fraction=asked.test_fraction,
        agreed=found.plain(),
    )


def _presets(folder: Path, page: OnNodes) -> str:
    file = folder / "agreed" / "dataset" / "wards.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(preset(page, page.agreed, file))
    return str(folder / "agreed")


def _config(presets: str, *words: str) -> Config:
    superlink = ("backend=deployment", "backend.superlink=there:1", "backend.insecure=true")
    given = ["dataset=wards", *SHORT, *superlink, *words]
    return plan(given, multirun=False, config_dir=presets)[0].config


def _run(grid: Grid, config: Config, folder: Path) -> dict[str, Any]:
    grid.run_config = _as_sent(config)
    with deployment.through(grid):  # type: ignore[arg-type]
        return run_experiment(RunInfo(config, folder))


def _as_sent(config: Config) -> dict[str, Any]:
    """Return what nodes are sent of a configuration: what stands in the app that is submitted."""
    text = app_files(config, driven=True)["pyproject.toml"]
    return flattened(tomllib.loads(text)["tool"]["flwr"]["app"]["config"])


def _together(folder: Path, *words: str) -> dict[str, Any]:
    """Run the same where all files lie together."""
    files = ("dataset=files", f"dataset.path={HOSPITALS}", "dataset.target=outcome")
    (job,) = plan([*files, *SHORT, "backend=inline", *words], multirun=False)
    return run_experiment(RunInfo(job.config, folder))


_BY_CLIENTS = "split in ('client_test', 'train') and round > 0 and metric != 'bytes_down'"


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("survey")
    return _presets(folder, _survey(Grid()))


@pytest.mark.slow  # 5 s each
@pytest.mark.parametrize(
    "strategy", ["fedavg", "local_only", "scaffold", "ditto", "fedadam", "fedproto"]
)
def test_the_model_is_that_of_files_that_lie_together(
    tmp_path: Path, presets: str, strategy: str
) -> None:
    words = [f"strategy={strategy}", "clients.fraction_evaluate=1"]
    if strategy == "fedproto":  # features are what the last of several layers takes
        words.append("model=tabular_mlp")
    mine = _run(Grid(), _config(presets, *words), tmp_path / "mine")
    theirs = _together(tmp_path / "theirs", *words)
    assert mine["status"] == "completed"
    assert mine["model_sha256"] == theirs["model_sha256"]
    # What clients measured is the same, too; what the server tests, nobody can.
    found, wanted = (metrics(tmp_path / name).query(_BY_CLIENTS) for name in ("mine", "theirs"))
    if strategy == "ditto":  # the global model's, too, at the end
        wanted = wanted[(wanted["model"] == "local") | (wanted["split"] == "train")]
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True
    )


@pytest.mark.slow
def test_the_mean_over_clients_stands_in_for_the_test_set(tmp_path: Path, presets: str) -> None:
    mine = _run(Grid(), _config(presets), tmp_path / "mine")
    _together(tmp_path / "theirs")
    found, wanted = (
        metrics(tmp_path / name).query("split == 'test'").set_index(["round", "metric"])["value"]
        for name in ("mine", "theirs")
    )
    for name in ("accuracy", "loss"):  # of others, such as auroc, it is another number
        mean, whole = (v.xs(name, level="metric").tolist() for v in (found, wanted))
        assert mean == pytest.approx(whole, rel=1e-6)
    assert mine["final"]["all"]["accuracy"] == found[2, "accuracy"]
    assert not (tmp_path / "mine" / "confusion.csv").exists()
    told = json.loads((tmp_path / "mine" / "partition.json").read_text())
    assert told["owners"] == list(OWNERS)
    assert told["class_counts"] == [[288], [176], [56]]
    assert (
        told["columns"]
        == json.loads((tmp_path / "theirs" / "partition.json").read_text())["columns"]
    )


@pytest.mark.slow
def test_a_comparison_and_a_report_say_it_hospital_by_hospital(
    tmp_path: Path, presets: str
) -> None:
    for strategy in ("fedavg", "local_only"):
        _run(Grid(), _config(presets, f"strategy={strategy}"), tmp_path / "out" / strategy)
    found = load(tmp_path / "out")
    comparison = compare(found)
    assert comparison.own["owner"].tolist() == 2 * list(OWNERS)
    assert comparison.own["tested on"].tolist() == 2 * [72, 44, 14]
    assert comparison.own["accuracy"].notna().all()
    assert comparison.isolated.empty  # nobody tested one hospital's model on another's rows
    gained = comparison.table.set_index("row")["gain"]["fedavg"]
    finals = {
        s: summary(tmp_path / "out" / s)["final"]["all"]["accuracy"]
        for s in ("fedavg", "local_only")
    }
    assert gained == pytest.approx(finals["fedavg"] - finals["local_only"])
    assert any("nobody's examples but their own" in note for note in comparison.notes)
    page = render(found, comparison, "out")
    assert "valley" in page
    assert "best client" not in page


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, presets: str) -> None:
    config = _config(presets, "strategy=scaffold", "rounds=1", "checkpoint.every=1")
    _run(Grid(), config, tmp_path / "run")
    assert saved_config(tmp_path / "run") == config
    from fedexp.resume import _rest_of_run

    rest = _rest_of_run(tmp_path / "run", ["rounds=2"], None)
    assert rest is not None
    grid = Grid()  # whose nodes know nothing
    grid.run_config = _as_sent(rest.config)
    with deployment.through(grid):  # type: ignore[arg-type]
        again = run_experiment(rest)
    whole = _run(Grid(), _config(presets, "strategy=scaffold"), tmp_path / "whole")
    assert again["model_sha256"] == whole["model_sha256"]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_bytes()


@pytest.mark.slow
def test_a_node_that_does_not_test_is_left_out_of_the_mean(
    tmp_path: Path, presets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(presets, "backend.timeout=0.2")
    grid = Grid()
    answer = Node.answer

    def mute(one: Node, message: Message, run_config: dict[str, Any]) -> Message:
        reply = answer(one, message, run_config)
        late = message.metadata.message_type == "evaluate" and one.number == 29
        return Message(Error(0, "out for lunch"), reply_to=message) if late else reply

    monkeypatch.setattr(Node, "answer", mute)
    told = _run(grid, config, tmp_path / "run")
    assert told["status"] == "completed"
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert set(failures["client"]) == {1}
    assert set(failures["reason"]) == {"out for lunch"}
    rows = metrics(tmp_path / "run").query(
        "split == 'client_test' and metric == 'accuracy' and round == 2"
    )
    own = rows.dropna(subset="client").set_index("client")["value"]
    assert own.index.tolist() == [0, 2]
    mean = (72 * own[0] + 14 * own[2]) / 86
    assert told["final"]["all"]["accuracy"] == pytest.approx(mean)
    assert told["fairness"]["mean"] == pytest.approx((own[0] + own[2]) / 2)


@pytest.mark.slow
def test_a_regression_is_judged_as_where_files_lie_together(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k, name in enumerate(OWNERS):
        rows = "".join(f"{i},{i % 7},{2 * i + k + i % 3 + 0.5}\n" for i in range(30 + k))
        (folder / f"{name}.csv").write_text("a,b,cost\n" + rows)
    page = _survey(Grid(folder), Asked(target="cost"))
    assert page.task == "regression"
    config = _config(_presets(tmp_path, page), "model=linear")
    mine = _run(Grid(folder), config, tmp_path / "mine")
    words = ("model=linear", f"dataset.path={folder}", "dataset.target=cost")
    theirs = _together(tmp_path / "theirs", *words)
    assert mine["model_sha256"] == theirs["model_sha256"]
    assert math.isfinite(mine["final"]["all"]["rmse"])


def _gigabyte(asked: Message, reply: Message) -> Message:
    record = reply.content.array_records["arrays"]
    for name in record:  # never touched, so it takes no memory here
        record[name] = Array(np.zeros(2**28, dtype=np.float32))
    return reply


SPOILT = {
    "other shapes": (WEIGHTS["another shape"], "is float32"),
    "NaN": (WEIGHTS["one NaN"], "NaN"),
    "a gigabyte": (_gigabyte, "(268435456,)"),
    "a pickle": (BYTES["a pickle"], "cannot be read"),
    "more examples than it has": (
        METRICS["a count of 10**30"],
        "num-examples is an integer beyond",
    ),
}


@pytest.mark.slow  # 2 s each
@pytest.mark.parametrize("what", list(SPOILT))
def test_a_node_that_sends_what_cannot_be_used_is_refused_in_a_line(
    tmp_path: Path, presets: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spoil, reason = SPOILT[what]
    answer = Node.answer

    def bad(one: Node, message: Message, run_config: dict[str, Any]) -> Any:
        reply = answer(one, message, run_config)
        trained = message.metadata.message_type == "train" and one.number == 29
        return spoil(message, reply) if trained else reply

    monkeypatch.setattr(Node, "answer", bad)
    done = _run(Grid(), _config(presets), tmp_path / "run")
    assert done["status"] == "completed"
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert failures[["round", "phase", "client"]].values.tolist() == [
        [1, "train", 1],
        [2, "train", 1],
    ]
    assert all(reason in line and "\n" not in line for line in failures["reason"])


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["backend=inline"], "the examples lie on SuperNodes: backend=deployment; backend=inline"),
        (["partition=iid"], "partition=iid deals examples, which"),
        (
            ["strategy=centralized"],
            "strategy=centralized trains on the examples of all clients in one",
        ),
        (
            ["dataset.validation=0.1"],
            "dataset.validation=0.1: dataset=on_nodes holds nothing out yet",
        ),
        (["mode=partition"], "mode=partition shows examples"),
        (["clients.fraction_evaluate=0.5"], "every client tests every round"),
        (["clients.unseen=0.4"], "clients.unseen=0.4: its models are tested by the server"),
        (["clients.tuned_steps=3"], "clients.tuned_steps=3: its models"),
        (
            ["dataset.target=age"],
            "dataset.target=age: the nodes agreed with outcome; survey them again",
        ),
        (["dataset.split_seed=3"], "dataset.split_seed=3: the nodes agreed with 0"),
        (["dataset.ignore=[age]"], "dataset.ignore=['age']: the nodes agreed with []"),
        (
            ["backend.data=[a.csv]"],
            "those of backend.superlink=there:1 say themselves what they hold",
        ),
        (
            ["backend.superlink=null", "backend.insecure=false", "backend.data=[a,b]"],
            "backend.data must name a file for each of clients.num=3 SuperNodes, got 2",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_needs_examples_in_one_place_is_refused(
    presets: str, words: list[str], told: str
) -> None:
    given = words
    if words[0].startswith("backend=inline"):
        with pytest.raises(ConfigError) as error:
            plan(["dataset=wards", *SHORT, *words], multirun=False, config_dir=presets)
    else:
        with pytest.raises(ConfigError) as error:
            _config(presets, *given)
    assert len(error.value.errors) == 1, error.value.errors
    assert told in error.value.errors[0]


def test_a_dataset_that_nobody_has_surveyed_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        plan(["dataset=on_nodes", "backend=deployment"], multirun=False)
    assert error.value.errors == [
        "dataset=on_nodes needs what the nodes agreed on: fedexp survey FOLDER/dataset/NAME.yaml asks "
        "them, then fedexp --config-dir FOLDER dataset=NAME"
    ]


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"partition-id": 0}, "it has no files of its own: start it with --node-config"),
        ({"data": "/nowhere/east.csv"}, "it holds the files of east, which was not there when"),
        pytest.param({"data": "/nowhere/north.csv"}, None, marks=pytest.mark.slow),
    ],
)
def test_a_node_that_cannot_take_part_says_why(
    monkeypatch: pytest.MonkeyPatch,
    presets: str,
    tmp_path: Path,
    held: dict[str, Any],
    told: str | None,
) -> None:
    monkeypatch.setattr(node_grid, "JOIN", 0.1)
    grid = Grid()
    grid.nodes[30].held = held
    if told is not None:
        with pytest.raises(
            FedexpError, match=r"no SuperNode holds the files of north: start one"
        ) as e:
            _run(grid, _config(presets), tmp_path / "run")
        assert told in str(e.value)
        return
    done = _run(grid, _config(presets), tmp_path / "run")  # its client fails, and the others go on
    assert done["status"] == "completed"
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert set(failures["client"]) == {0}
    assert all("north: its file is not there" in reason for reason in failures["reason"])


def test_a_node_of_files_is_not_taken_for_a_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node_grid, "JOIN", 0.1)
    words = ["backend=deployment", "backend.superlink=there:1", "backend.insecure=true"]
    (job,) = plan([*words, "model=logistic"], multirun=False)
    with pytest.raises(FedexpError, match="dataset=mnist5k is dealt in shares, and this SuperNode"):
        _run(Grid(), job.config, tmp_path / "run")


def test_a_survey_needs_all_nodes_and_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(asking, "JOIN", 0.05)

    def ask(grid: Grid, num: int) -> None:
        survey_through(grid, num, ASKED, 0.2, lambda line: None)  # type: ignore[arg-type]

    with pytest.raises(FedexpError, match=r"3 SuperNodes are there, and clients.num=4"):
        ask(Grid(), 4)
    with pytest.raises(FedexpError, match=r"^3 SuperNodes are there, and clients.num=2"):
        ask(Grid(), 2)
    grid = Grid()
    grid.gone = {29}
    with pytest.raises(FedexpError, match=r"^SuperNode 29: no answer within 0.2 s"):
        ask(grid, 3)
    (tmp_path / "north.csv").write_text("age,outcome\n1,yes\n2,\n")
    grid = Grid()
    grid.nodes[30].held = {"data": str(tmp_path / "north.csv")}
    with pytest.raises(
        FedexpError, match=r"^SuperNode 30: north, line 3, column outcome: the target is"
    ):
        ask(grid, 3)


@pytest.mark.parametrize(
    ("file", "words", "told"),
    [
        ("agreed/hospitals.yaml", [], "must be FOLDER/dataset/NAME.yaml"),
        ("agreed/dataset/my wards.yaml", [], "must be FOLDER/dataset/NAME.yaml"),
        ("agreed/dataset/mnist.yaml", [], "dataset=mnist is a choice already"),
        ("agreed/dataset/on_nodes.yaml", [], "dataset=on_nodes is a choice already"),
        ("agreed/dataset/w.yaml", ["rounds=3"], "rounds: a survey asks about data"),
        ("agreed/dataset/w.yaml", ["dataset=mnist"], "leave other choices out"),
        ("agreed/dataset/w.yaml", ["dataset.test_fraction=2"], "dataset.test_fraction must be < 1"),
        ("agreed/dataset/w.yaml", ["dataset.nope=2"], "dataset.nope"),
        ("agreed/dataset/w.yaml", [], "name the file of each of the 3 SuperNodes"),
        (
            "agreed/dataset/w.yaml",
            ["backend.data=[no/a.csv]"],
            "backend.data: no/a.csv is not there",
        ),
    ],
)
def test_a_survey_that_cannot_be_made_is_refused(
    tmp_path: Path, file: str, words: list[str], told: str
) -> None:
    with pytest.raises((ConfigError, FedexpError), match=told):
        write_survey(tmp_path / file, words)
    assert list(tmp_path.iterdir()) == []


def test_a_preset_holds_every_bit(tmp_path: Path) -> None:
    page = _survey(Grid())
    tiny = {**page.agreed, "mean": [1e-7 / 3, 1e22 / 7, *page.agreed["mean"][2:]]}
    page = replace(page, agreed=tiny)
    config = _config(_presets(tmp_path, page))
    assert config.dataset.version() == page.version()
    assert from_flat(flat(config)).dataset.version() == page.version()
    text = (tmp_path / "agreed" / "dataset" / "wards.yaml").read_text()
    assert yaml.safe_load(text)["agreed"]["owners"] == list(OWNERS)
