"""Saving: plain data only, in one step, beside the file that it replaces."""

import enum
import os
import stat
import subprocess
import sys
import threading
from collections import OrderedDict, namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from groupwise._atomic import replacing
from groupwise.checkpoint import load, save
from groupwise.errors import StateError
from tests.checkpoint.parts import Balancer, net, same

Point = namedtuple("Point", "x y")


class Level(enum.IntEnum):
    HIGH = 2


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("given", "comes_back"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (Point(1, 2.5), (1, 2.5)),
        ([True, None, "text", Level.HIGH, Word("w")], [True, None, "text", 2, "w"]),
        ({(1, "a"): {0.5: []}}, {(1, "a"): {0.5: []}}),
        (nn.Parameter(torch.ones(2)), torch.ones(2)),
        (float("inf"), float("inf")),
    ],
)
def test_what_is_a_kind_of_plain_data_comes_back_as_that(given: object, comes_back: object, tmp_path: Path) -> None:
    save(tmp_path / "run.pt", extra=given)
    assert same(load(tmp_path / "run.pt").extra, comes_back)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"at": Path("x")},
            r"extra\['at'\] is (Posix|Windows)Path, which is not plain data: a checkpoint holds tensors",
        ),
        ([1, {2}], r"extra\[1\] is set"),
        ({Path("x"): 1}, r"extra: the key .* is (Posix|Windows)Path"),
        (lambda: 1, "extra is function"),
        (b"bytes", "extra is bytes"),
        (torch.ones(2, device="meta"), "extra is on the meta device"),
    ],
)
def test_what_is_not_plain_is_refused_by_its_place_and_the_old_file_stays(
    given: object, message: str, tmp_path: Path
) -> None:
    save(tmp_path / "run.pt", extra=1)
    with pytest.raises(StateError, match=r"run\.pt: " + message):
        save(tmp_path / "run.pt", extra=given)
    assert load(tmp_path / "run.pt").extra == 1
    assert len(list(tmp_path.iterdir())) == 1


class Strange(torch.Tensor):
    """A kind of tensor that a file of plain data cannot name."""


def test_what_could_not_be_read_again_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", extra=1)
    with pytest.raises(StateError, match=r"more than plain data, which is never loaded here: .*Strange"):
        save(tmp_path / "run.pt", extra=torch.ones(2).as_subclass(Strange))
    assert load(tmp_path / "run.pt").extra == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_part_of_state_that_is_not_plain_is_named(tmp_path: Path) -> None:
    balancer = Balancer()
    balancer.weight = object()  # type: ignore[assignment]
    with pytest.raises(StateError, match=r"balancer\['weight'\] is object"):
        save(tmp_path / "run.pt", balancer=balancer)


@pytest.mark.parametrize(
    ("path", "message"),
    [(".", "is a directory; give the name of a file"), ("none/run.pt", "there is no directory '.*none'")],
)
def test_a_path_that_no_file_can_have_is_an_error(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=message):
        save(tmp_path / path, extra=1)


def test_saving_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nothing to save: give model=, optimizer="):
        save(tmp_path / "run.pt")


def test_tied_weights_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.ModuleDict({"embed": nn.Embedding(300, 50), "head": nn.Linear(50, 300, bias=False)})
        model["head"].weight = model["embed"].weight
        return model

    save(tmp_path / "run.pt", model=(model := made(1)))
    assert (tmp_path / "run.pt").stat().st_size < 2 * 300 * 50 * 4
    fresh = made(2)
    load(tmp_path / "run.pt", model=fresh)
    assert fresh["head"].weight is fresh["embed"].weight
    assert torch.equal(fresh["head"].weight, model["head"].weight)


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.pt", tmp_path / "latest.pt"
    save(real, extra=1)
    real.chmod(0o640)
    link.symlink_to(real)
    save(link, extra=2)
    assert link.is_symlink()
    assert load(real).extra == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_what_a_dead_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with replacing(path):
        (orphan,) = tmp_path.glob(".run.pt.*.partial")
        kept = orphan.with_name("kept")
        os.link(orphan, kept)  # as a writer that is killed would leave it
    kept.rename(orphan)
    path.unlink()
    with replacing(path) as other:
        save(path, extra=1)
        assert not orphan.exists()
        other.write(b"mine")
    assert path.read_bytes() == b"mine"


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    model = net()

    def write(count: int) -> None:
        for _ in range(10):
            save(path, model=model, extra=count)

    writers = [threading.Thread(target=write, args=(count,)) for count in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert load(path, model=net(1)).extra in range(4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]


def test_no_writer_takes_anothers_new_file_for_an_orphan(tmp_path: Path) -> None:
    lost: list[OSError] = []

    def write() -> None:
        for _ in range(100):
            try:
                with replacing(tmp_path / "run.pt") as file:
                    Path(file.name).stat()
            except OSError as error:
                lost.append(error)

    writers = [threading.Thread(target=write) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not lost


FULL_DISK = """
import resource, signal, sys
import torch
from groupwise.checkpoint import save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save(sys.argv[1], extra=torch.zeros(1_000_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are of POSIX")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, extra=1)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr or "write" in done.stderr
    assert load(path).extra == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]
