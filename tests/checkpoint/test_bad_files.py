"""Whatever the file is, no code in it runs, the error says what it is, and nothing changes."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.checkpoint import layout, load, save
from groupwise.errors import StateError
from tests.checkpoint.parts import Parts, same


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.trace), "w"))


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["parts"]["model"]["state"]["0.weight"]
    content[content.find(weight.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def as_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def legacy(path: Path) -> None:
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def part(name: str, value: object) -> Callable[[Path], None]:
    return lambda path: edited(path, lambda content: content["parts"].__setitem__(name, value))


BAD = {
    "missing": (lambda path: path.rename(path.with_name("run2.pt")), r"there is no such file; did you mean 'run2\.pt'"),
    "a directory": (as_a_directory, "is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint: it is empty"),
    "text": (lambda path: path.write_text("epoch: 3"), "not a checkpoint: it begins with b'epoc'"),
    "truncated": (truncated, "truncated or damaged"),
    "a flipped bit": (with_a_flipped_bit, r"damaged: the bytes of archive/data/\d+ are not those that were written"),
    "a zip": (zipped, r"a zip archive, but no torch file: it holds notes\.txt"),
    "a torch file of old": (legacy, "not a checkpoint: it begins with"),
    "a state_dict": (
        lambda path: torch.save(nn.Linear(2, 2).state_dict(), path),
        r"a torch file, but not one of groupwise\.checkpoint\.save: it holds the keys 'weight', 'bias'\. Read it with",
    ),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), "it holds Tensor"),
    "a whole model": (lambda path: torch.save(nn.Linear(2, 2), path), "more than plain data.*torch.nn.modules.linear"),
    "a newer version": (
        lambda path: edited(path, lambda content: content.update(version=2)),
        "written by a newer groupwise: format 2, this one reads up to 1",
    ),
    "no version": (lambda path: edited(path, lambda content: content.pop("version")), "damaged: format None"),
    "no parts": (lambda path: edited(path, lambda content: content.update(parts=3)), "with parts int"),
    "a part less": (
        lambda path: edited(path, lambda c: (c["parts"].pop("balancer"), c["parts"].pop("generator"))),
        r"it has no balancer and no generator \(the parts in it: model, optimizer, scheduler\)",
    ),
    "a strange model": (part("model", 3), "model: is not the state of a model"),
    "a strange optimizer": (part("optimizer", [1]), "optimizer: its state is list"),
    "an empty optimizer": (part("optimizer", {"state": {}, "param_groups": []}), "no parameter .* is known here"),
    "a strange state": (
        part("optimizer", {"state": {0: 1}, "param_groups": [{"params": [0], "param_names": ["0.weight"]}]}),
        "the state of '0.weight' in the checkpoint is int",
    ),
    "a strange scheduler": (part("scheduler", {"last_epoch": "3"}), "scheduler: .* counts whole updates.*'3'"),
    "a negative scheduler": (part("scheduler", {"last_epoch": -4}), "last_epoch = -4"),
    "strange plateaus": (
        part("scheduler", {"last_epoch": 3, "plateaus": {"p": {}}}),
        "plateau's state has value, best",
    ),
    "a strange balancer": (part("balancer", {}), "balancer: 'weight'"),
    "a strange generator": (part("generator", {"": torch.ones(3)}), "generator '' random state has another form"),
    "other generators": (part("generator", {"a": torch.ones(3)}), "the file has 'a', this run has ''"),
    "strange random state": (part("rng", {"rank": 0, "cuda": [], "cpu": 7}), "rng: the CPU's random state"),
    "no random state": (part("rng", {}), "rng: is not a random state"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_an_error_that_says_what_it_is_and_changes_nothing(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    spoil(path)
    run = Parts(0)
    before = run.held()
    with pytest.raises(StateError, match=r"run\.pt: .*" + message):
        load(path, **run.given())
    assert same(run.held(), before)


def test_a_hostile_file_runs_no_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "run.pt", tmp_path / "trace"
    run = Parts(0)
    run.written(path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "extra": Hostile(trace)}, path)
    with pytest.raises(
        StateError, match=r"refused: it holds more than plain data, which is never loaded here: io\.open"
    ):
        load(path, **run.given())
    assert not trace.exists()


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    whole = path.read_bytes()
    run = Parts(0)
    before = run.held()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError, match=r"truncated|empty|begins with"):
            load(path, **run.given())
    assert same(run.held(), before)


def test_every_byte_of_the_directory_and_of_the_end_is_under_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, extra={"epoch": 3})
    assert load(path).extra == {"epoch": 3}
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for place in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=r"run\.pt: "):
            load(path)


@pytest.mark.parametrize("twice", [False, True])
def test_an_archive_that_names_an_entry_twice_is_refused(twice: bool, tmp_path: Path) -> None:
    """Two readers could take either; `save` writes no such thing."""
    path, copy = tmp_path / "run.pt", tmp_path / "copy.pt"
    save(path, extra={"w": torch.ones(3)})
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
        for name, data in entries:
            written.writestr(name, data)
        if twice:
            with pytest.warns(UserWarning, match="Duplicate name"):
                written.writestr(*entries[-1])
        for info in written.filelist:
            info.external_attr = 0
    if not twice:
        assert torch.equal(load(copy).extra["w"], torch.ones(3))
        return
    with pytest.raises(StateError, match="its directory does not list every entry once"):
        load(copy)


def test_another_architecture_is_named_by_what_is_missing_unexpected_and_of_another_shape(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    run = Parts(0, width=6)
    run.model.append(nn.Linear(2, 2))
    with pytest.raises(
        StateError,
        match=r"model: of another architecture: of 11 entries, 2 not in the file \(3\.weight, 3\.bias\); 7 of another "
        r"shape \(0\.weight \(4, 3\) and here \(6, 3\), .* and 4 more\)",
    ):
        load(path, model=run.model)
    with pytest.raises(StateError, match=r"7 not in this model \(0\.bias, 1\.weight, 1\.bias and 4 more\)"):
        load(path, model=nn.Sequential(nn.Linear(3, 4, bias=False), nn.Identity(), nn.Linear(4, 2, bias=False)))


def test_an_optimizer_of_another_model_is_refused_before_anything_changes(tmp_path: Path) -> None:
    path = Parts(1).written(tmp_path / "run.pt")
    run = Parts(0, width=6)
    before = run.held()
    with pytest.raises(StateError, match=r"optimizer: '0\.weight' has shape \(6, 3\), but 'exp_avg' .* has \(4, 3\)"):
        load(path, optimizer=run.optimizer, scheduler=run.scheduler)
    assert same(run.held(), before)


def test_a_stream_that_looks_like_an_archive_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"not a pickle at all")
        archive.writestr("archive/version", b"3")
    path.write_bytes(stream.getvalue())
    with pytest.raises(StateError, match=r"run\.pt: (refused|truncated or damaged)"):
        load(path)


def test_an_entry_that_says_it_is_packed_is_refused_even_at_its_own_size() -> None:
    stored = layout._DirectoryEntry(
        "run/data.pkl", flags=0, method=zipfile.ZIP_STORED, checksum=0, sizes=(5, 5), place=0, more=()
    )
    assert stored.is_plain
    assert not stored._replace(method=zipfile.ZIP_DEFLATED).is_plain
    assert not stored._replace(sizes=(5, 6)).is_plain
