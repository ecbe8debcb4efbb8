"""Sinks: keys that every tracker takes, and the real TensorBoard, MLflow (file store) and trackio (offline)."""

import json
import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.observe.sinks import Call, Memory, MLflow, Sink, TensorBoard, Wandb, flat, safe
from groupwise.records import Step
from tests.observe.nets import groups, net, train

STEP = Step(
    7,
    values={"body/0": {"lr": 0.1}},
    groups={"body/0": {"grad_norm": 2.0}, "<script>": {"grad_norm": math.inf}},
    scalars={"loss": 1.0},
    tasks={"left": {"weight": 0.5}},
    cosines=[("left", "right", -0.25)],
    shares={"left": {"body/0": 1.0}},
)
names = st.text(st.characters(exclude_categories=()), max_size=12)


def observed(folder: Path | None, *to: Sink) -> Observer:
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1)
    with Observer(optimizer, folder, sinks=to) as observer:
        train(model, optimizer, observer, 3)
    return observer


def test_keys_say_what_a_number_is_of() -> None:
    group = safe("body/0")
    assert set(flat(STEP)) == {
        f"opt/{group}/lr",
        f"opt/{group}/grad_norm",
        f"opt/{safe('<script>')}/grad_norm",
        "loss",
        "task/left/weight",
        "pair/left/right/cosine",
        f"share/left/{group}",
    }
    assert flat(STEP)["pair/left/right/cosine"] == -0.25


@given(names)
def test_a_name_becomes_one_part_of_a_key_that_mlflow_takes(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9\-_. ]+", safe(name))
    assert safe(name).strip(". ")
    assert safe(safe(name)) == safe(name)


@given(st.lists(names, unique=True, max_size=20))
def test_names_that_differ_have_keys_that_differ(some: list[str]) -> None:
    assert len({safe(name) for name in some}) == len(some)


@pytest.mark.parametrize("name", ["grad_norm", "body.0", "two words", "no-decay"])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert safe(name) == name


def test_memory_keeps_the_last_records(tmp_path: Path) -> None:
    memory = Memory(size=2)
    observer = observed(tmp_path, memory)
    assert [step for step, _ in memory.records] == [1, 2]
    assert memory.records[-1][1] == flat(observer.last)


def test_a_function_is_called_with_every_record() -> None:
    snapshot: list[tuple[int, Mapping[str, float]]] = []
    observed(None, Call(lambda values, step: snapshot.append((step, values))))
    assert [step for step, _ in snapshot] == [0, 1, 2]
    assert {"loss", "opt/heads/lr", "opt/heads/grad_norm"} <= set(snapshot[1][1])


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    observer = observed(None, sink)
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) >= set(flat(observer.last))
    told = events.Scalars("opt/heads/grad_norm")
    assert [event.step for event in told] == [0, 1, 2]
    assert told[-1].value == pytest.approx(observer.last.groups["heads"]["grad_norm"])


@pytest.mark.filterwarnings("ignore")  # of mlflow, about its file store and its dependencies
def test_mlflow_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("groupwise")
    with mlflow.start_run() as run:
        observer = observed(None, MLflow())
        MLflow().log(flat(STEP), 7)  # names with any character, a number that is not finite
    MLflow(run.info.run_id).log({"loss": 9.0}, 9)
    client = mlflow.MlflowClient()
    told = client.get_metric_history(run.info.run_id, "opt/heads/grad_norm")
    assert [(metric.step, metric.value) for metric in told][-1] == (2, observer.last.groups["heads"]["grad_norm"])
    assert {metric.step for metric in client.get_metric_history(run.info.run_id, "loss")} == {0, 1, 2, 7, 9}
    assert set(client.get_run(run.info.run_id).data.metrics) >= set(flat(STEP))


TRACKIO = """
import math
import trackio
from groupwise.observe.sinks import Wandb
from tests.observe.test_sinks import observed, flat, STEP
trackio.init(project="groupwise", name="first", embed=False)
observed(None, Wandb(trackio), Wandb("trackio"))
Wandb("trackio").log(flat(STEP), 7)
trackio.finish()
"""


def test_trackio_reads_what_was_logged_offline(tmp_path: Path) -> None:
    environment = {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", TRACKIO], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    database = sqlite3.connect(tmp_path / "groupwise.db")
    rows = [(step, json.loads(row)) for step, row in database.execute("select step, metrics from metrics order by id")]
    database.close()
    assert [step for step, _ in rows] == [0, 0, 1, 1, 2, 2, 7]
    assert "opt/heads/grad_norm" in rows[0][1]
    assert set(rows[-1][1]) == set(flat(STEP))


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("torch.utils.tensorboard", lambda: TensorBoard("folder")),
        ("mlflow", MLflow),
        ("wandb", Wandb),
        ("trackio", lambda: Wandb("trackio")),
    ],
)
def test_a_package_that_is_not_installed_is_named(package: str, make: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    name = package.rpartition(".")[2]
    with pytest.raises(RecordError, match=f"this sink needs the package {name}: pip install {name}"):
        make()


def test_what_cannot_log_is_refused() -> None:
    with pytest.raises(RecordError, match=r"has no log\(dict, step=\)"):
        Wandb(json)


def test_an_error_of_a_sink_is_the_callers_to_see() -> None:
    def fail(values: Mapping[str, float], step: int) -> None:
        raise ValueError("the sink is full")

    with pytest.raises(ValueError, match="the sink is full"):
        observed(None, Call(fail))
