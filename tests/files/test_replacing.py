"""A file is replaced whole or not at all, in its place, with its permissions; nothing else is touched by any writer."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groupwise import _atomic
from groupwise._atomic import obstacle, replacing
from tests.files.doors import DOORS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")
every_door = pytest.mark.parametrize("name", DOORS)
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root makes devices and owners")


def door(name: str, folder: Path) -> tuple[Callable[[Path], object], Path, type[Exception]]:
    write, suffix, refusal = DOORS[name]
    return write, folder / f"target.{suffix}", refusal


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def beside(path: Path) -> list[str]:
    """The files in the folder of `path`, other than it."""
    return sorted(entry.name for entry in path.parent.iterdir() if entry != path)


@every_door
def test_a_new_file_has_the_permissions_of_any_new_file(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    before = os.umask(0o027)
    try:
        write(target)
    finally:
        os.umask(before)
    assert mode(target) == 0o640
    assert not beside(target)


@every_door
def test_a_file_that_is_replaced_keeps_its_permissions(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    for permissions in (0o600, 0o644, 0o640, 0o755, 0o666):
        target.write_bytes(b"old")
        target.chmod(permissions)
        write(target)
        assert mode(target) == permissions
        assert target.read_bytes() != b"old"


@as_root
@every_door
def test_a_file_that_is_replaced_keeps_its_owner_and_group(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    target.write_bytes(b"old")
    target.chmod(0o2640)
    os.chown(target, 1234, 2345)
    target.chmod(0o2640)
    write(target)
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o2640)


AS_SOMEBODY_ELSE = """
import os, sys
from pathlib import Path
from groupwise._atomic import replacing
os.setgroups([]); os.setgid(4321); os.setuid(4321)
try:
    with replacing(Path(sys.argv[1])) as file:
        file.write(b"new")
except OSError as error:
    sys.stdout.write(f"{type(error).__name__} {error}")
"""


def as_somebody_else(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", AS_SOMEBODY_ELSE, path], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that anybody may write into, and reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path(folder.root) and folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    return tmp_path


@as_root
def test_permissions_of_a_group_that_cannot_be_kept_are_given_to_no_other(open_folder: Path) -> None:
    target = open_folder / "theirs"
    target.write_bytes(b"old")
    target.chmod(0o666)
    os.chown(target, 1234, 2345)
    target.chmod(0o6672)
    assert as_somebody_else(target) == ""
    found = target.stat()
    assert (found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode))) == (4321, 4321, oct(0o622))


@as_root
def test_a_read_only_file_and_a_read_only_folder_are_refused(open_folder: Path) -> None:
    target = open_folder / "kept"
    target.write_bytes(b"old")
    target.chmod(0o444)
    assert as_somebody_else(target) == f"PermissionError [Errno 13] it is read-only: '{target}'"
    open_folder.chmod(0o755)
    assert as_somebody_else(open_folder / "new") == f"PermissionError [Errno 13] Permission denied: '{open_folder}/new'"
    assert target.read_bytes() == b"old"
    assert not beside(target)


@every_door
def test_until_it_is_complete_only_its_writer_can_read_what_others_may_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, target, _ = door(name, tmp_path)
    target.write_bytes(b"old")
    target.chmod(0o600)
    seen: list[tuple[str, int]] = []
    for function in ("fsync", "replace", "fchmod", "fchown"):
        original = getattr(os, function)

        def watched(*given: object, name: str = function, original: Callable[..., object] = original) -> object:
            seen.extend((name, mode(tmp_path / other)) for other in beside(target))
            return original(*given)

        monkeypatch.setattr(os, function, watched)
    write(target)
    assert {name for name, _ in seen} >= {"fsync", "replace"}
    assert {permissions for _, permissions in seen} == {0o600}


@every_door
def test_links_are_followed_chains_and_dangling_ones_too(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    (tmp_path / "room").mkdir()
    real = tmp_path / "room" / target.name
    middle, first = tmp_path / f"middle{target.suffix}", tmp_path / f"first{target.suffix}"
    middle.symlink_to(Path("room") / target.name)
    first.symlink_to(middle)
    write(first)  # which leads nowhere yet
    whole = real.read_bytes()
    assert not real.is_symlink()
    real.write_bytes(b"old")
    real.chmod(0o600)
    write(first)
    assert len(real.read_bytes()) == len(whole)
    assert (first.is_symlink(), middle.is_symlink(), mode(real)) == (True, True, 0o600)
    assert not beside(real)


def test_other_names_of_a_file_keep_the_old_content(tmp_path: Path) -> None:
    target, kept = tmp_path / "run", tmp_path / "kept"
    target.write_bytes(b"old")
    os.link(target, kept)
    with replacing(target) as file:
        file.write(b"new")
    assert (target.read_bytes(), kept.read_bytes()) == (b"new", b"old")


def a_directory(path: Path) -> str:
    path.mkdir()
    return "it is a directory"


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return "it is a pipe"


def a_socket(path: Path) -> str:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)
    return "it is a socket"


def a_device(path: Path) -> str:
    if os.geteuid() != 0:
        path.symlink_to("/dev/null")
    else:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return "it is a device"


def a_link_to_a_device(path: Path) -> str:
    path.symlink_to("/dev/null")
    return "it is a device"


def an_open_file(path: Path) -> str:
    path.symlink_to("/dev/stdout")
    return "it is what a process holds open"


def in_no_folder(path: Path) -> str:
    path.symlink_to("nowhere/at/all")
    return "there is no directory '.*nowhere/at'"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    "made", [a_directory, a_pipe, a_socket, a_device, a_link_to_a_device, an_open_file, in_no_folder]
)
@every_door
def test_what_is_no_regular_file_is_refused_and_stays(name: str, made: Callable[[Path], str], tmp_path: Path) -> None:
    write, target, refusal = door(name, tmp_path)
    reason = made(target)
    before = os.lstat(target)
    with pytest.raises(refusal, match=rf"(?s)target.*{reason}|{reason}.*target"):
        write(target)
    after = os.lstat(target)
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert not beside(target)


@every_door
def test_a_folder_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    write, target, refusal = door(name, tmp_path / "none")
    with pytest.raises(refusal, match="there is no directory"):
        write(target)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/2", "/dev", "."])
def test_what_the_machine_needs_is_refused_and_stays(path: str) -> None:
    before = os.stat(path, follow_symlinks=False)
    with pytest.raises(OSError, match=r"it is (a device|a directory|what a process holds open)"):  # noqa: SIM117
        with replacing(Path(path)):
            pass
    assert os.stat(path, follow_symlinks=False).st_ino == before.st_ino


def test_a_link_that_leads_to_itself_and_a_name_that_cannot_be_are_errors_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: '.*loop'"):
        DOORS["replacing"][0](tmp_path / "loop")
    with pytest.raises(OSError, match="File name too long"):
        DOORS["replacing"][0](tmp_path / ("x" * 256))
    with pytest.raises(OSError, match="null character"):
        DOORS["replacing"][0](tmp_path / "a\0b")
    assert obstacle(tmp_path / "file") == ""


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\N{GRINNING FACE}" * 63, "a.b" * 70])
def test_the_longest_name_that_a_file_can_have_is_written_and_its_orphans_go(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    orphan = tmp_path / _atomic._name_of(target, "0" * 16)
    orphan.write_bytes(b"half a file")
    with replacing(target) as file:
        file.write(b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


FOREIGN = [
    ".{name}.partial", ".{name}.download.partial", ".{name}.0123456789abcdef.partial", ".{name}.{zeros}.partial",
    ".{name}.from-the-cluster.partial", ".{name}.old.0123456789abcdef.partial",
    "{name}.partial", ".{name}.partial.partial",
    ".other.{own}.partial", ".{name}.{own}.partial.part", ".{name}.{own}.PARTIAL",
    ".{name}.{wrong}.partial", ".{name}.{own}x.partial",
]  # fmt: skip


@every_door
def test_no_file_of_anybody_elses_is_removed(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    own = _atomic._name_of(target, "a" * 16).removesuffix(".partial").rpartition(".")[2]
    wrong = _atomic._name_of(tmp_path / "other", "a" * 16).removesuffix(".partial").rpartition(".")[2]
    names = {form.format(name=target.name, own=own, wrong=wrong, zeros="0" * 32) for form in FOREIGN}
    for other in names:
        (tmp_path / other).write_bytes(b"forty gigabytes, nearly there")
    write(target)
    assert set(beside(target)) == names


def test_what_a_dead_writer_left_is_removed_unless_it_is_no_file(tmp_path: Path) -> None:
    target = tmp_path / "run"
    orphans = [tmp_path / _atomic._name_of(target, token * 16) for token in "abcd"]
    orphans[0].write_bytes(b"half a file")
    orphans[1].mkdir()
    os.mkfifo(orphans[2])
    orphans[3].symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_bytes(b"precious")
    DOORS["replacing"][0](target)
    assert [orphan.exists() for orphan in orphans] == [False, True, True, True]


def test_where_there_are_no_locks_nothing_is_taken_for_an_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_atomic.fcntl, "flock", unsupported)
    target = tmp_path / "run"
    orphan = tmp_path / _atomic._name_of(target, "a" * 16)
    orphan.write_bytes(b"perhaps somebody writes it")
    DOORS["replacing"][0](target)
    assert (target.stat().st_size, orphan.exists()) == (10_000, True)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_is_no_failure(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    DOORS["replacing"][0](tmp_path / "run")
    assert beside(tmp_path / "run") == []


@every_door
@pytest.mark.parametrize("failing", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_the_disk_refuses_is_an_oserror_that_names_the_file_and_the_old_one_stays(
    name: str, failing: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, target, _ = door(name, tmp_path)
    target.write_bytes(b"old")
    target.chmod(0o640)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match=rf"{os.strerror(code)}: '.*target\..*'") as caught:
        write(target)
    assert (caught.value.errno, caught.value.filename) == (code, str(target))
    assert target.read_bytes() == b"old"
    assert not beside(target)


FULL_DISK = """
import errno, os, resource, signal, sys
from pathlib import Path
from tests.files.doors import DOORS
write, target = DOORS[sys.argv[1]][0], Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1, 17):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(target)
    except OSError as error:
        if (error.errno, error.filename) != (errno.EFBIG, str(target)):
            raise
    else:
        sys.exit(f"{target.stat().st_size} bytes were written under a limit of {limit}")
"""


@every_door
def test_a_full_disk_is_an_oserror_at_every_door_and_the_old_file_stays(name: str, tmp_path: Path) -> None:
    _, target, _ = door(name, tmp_path)
    target.write_bytes(b"old")
    subprocess.run([sys.executable, "-c", FULL_DISK, name, target], check=True)
    assert target.read_bytes() == b"old"
    assert not beside(target)


def test_an_error_of_the_writer_itself_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'elsewhere'"), replacing(tmp_path / "run"):
        Path("elsewhere").read_bytes()
    with pytest.raises(KeyError, match="mine"), replacing(tmp_path / "run"):
        raise KeyError("mine")
    assert not list(tmp_path.iterdir())


def test_what_becomes_a_device_meanwhile_is_refused_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(OSError, match="it is a pipe"), replacing(target) as file:
        file.write(b"new")
        os.mkfifo(target)
    assert stat.S_ISFIFO(os.lstat(target).st_mode)
    assert not beside(target)


def _write_for_ever(name: str, target: Path) -> None:
    while True:
        DOORS[name][0](target)


@every_door
def test_a_writer_that_is_killed_leaves_a_whole_file_and_the_next_one_tidies_up(name: str, tmp_path: Path) -> None:
    write, target, _ = door(name, tmp_path)
    write(target)
    whole, sizes = target.stat().st_size, set[int]()
    for i in range(12):
        child = os.fork()
        if not child:
            _write_for_ever(name, target)
        time.sleep(0.003 + 0.002 * i)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sizes.add(target.stat().st_size)
    assert sizes == {whole}
    write(target)
    assert not beside(target)


def test_writers_and_readers_at_the_same_time_see_whole_files_only(tmp_path: Path) -> None:
    target, torn = tmp_path / "run", list[int]()

    def write(byte: bytes) -> None:
        for _ in range(40):
            with replacing(target) as file:
                for _ in range(20):
                    file.write(byte * 5_000)

    write(b"0")
    writers = [threading.Thread(target=write, args=(byte,)) for byte in (b"1", b"2", b"3")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        data = target.read_bytes()
        if len(data) != 100_000 or len(set(data)) != 1:
            torn.append(len(data))
    assert not torn
    assert not beside(target)


@every_door
@pytest.mark.parametrize(("call", "kept"), [("open", True), ("fsync", False)], ids=["opening it", "flushing it"])
def test_a_disk_that_refuses_the_directory_is_named_and_leaves_a_whole_file(
    name: str, call: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, target, _ = door(name, tmp_path)
    original = getattr(os, call)
    target.write_bytes(b"old")

    def refusing(given: str | int | Path, *rest: int) -> int:
        is_it = os.path.samestat(os.fstat(given), tmp_path.stat()) if isinstance(given, int) else given == tmp_path
        if is_it:
            raise OSError(errno.EIO, "Input/output error")
        return original(given, *rest)

    monkeypatch.setattr(os, call, refusing)
    with pytest.raises(OSError, match="Input/output error" if kept else "the new file is there, whole, but") as caught:
        write(target)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(target))
    assert (target.read_bytes() == b"old") is kept
    assert not beside(target)
