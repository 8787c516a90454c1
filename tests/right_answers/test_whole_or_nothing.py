"""Whole or nothing (faults of 0.4.0, part 6): a full disk or a kill at any step leaves the old state or the new one.

The right value is the state itself, byte by byte, as it was written undisturbed and opened once. Kills by the system
and file systems that are really full: tests/kills.py.
"""

import os
import resource
import shutil
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import kills
import pytest
import roads
from roads import ROADS, Killed, States, contents, faults, leftovers

from tfxformer import files

# Of what takes long to write, every so manieth step is tried, and the last two, which change the place; of the
# others every other, and by `--slow` every one.
SLOW = {
    "bundle_litertlm": 3,
    "save(zipped=False)": 4,
    "the result of a recipe": 25,
    "save_pretrained of a discriminator and its generator": 7,
    "save_pretrained of a classifier over an embedder": 5,
    "save_pretrained of a task": 2,
}
FOLDERS = [name for name, road in ROADS.items() if road.file == "folder"]


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """The states of each road, written when they are first asked for."""
    made = {}

    def of(name: str) -> States:
        if name not in made:
            made[name] = States.of(ROADS[name], tmp_path_factory.mktemp("states"))
        return made[name]

    return of


@pytest.fixture(params=ROADS)
def road(request, states):
    """Each road's states."""
    return states(request.param)


@pytest.fixture(scope="module")
def stride(request):
    return 1 if request.config.getoption("--slow") else 2


def tried(name: str, count: int, stride: int) -> list[int]:
    """The steps of a road that are tried, of so many."""
    return sorted({*range(1, count + 1, max(stride, SLOW.get(name, 1))), max(1, count - 1), count})


def steps(road: States, place) -> int:
    """How many there are; at each of them a reader finds the old state or the new one."""
    road.begin(place)
    with faults(place.parent, watch=lambda: road.now(place)) as calls:
        road.road.write("new", place)
    assert road.now(place) == "new" and leftovers(place.parent) == []
    assert calls.count("fsync") >= 2, "neither the file nor its name was brought to the disk"
    return len(calls)


@pytest.mark.parametrize("name", ROADS)
def test_each_state_opens_and_answers_as_its_model(states, name):
    held, road = states(name), ROADS[name]
    for state in roads.STATES:
        assert road.answers(held.kept.parent.parent / state / road.file) == road.wanted(state)


def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_one(road, stride, tmp_path):
    place, seen = tmp_path / "at" / road.road.file, set()
    for at in tried(road.road.name, steps(road, place), stride):
        road.begin(place)
        with pytest.raises(Killed), faults(place.parent, at, "kill"):
            road.road.write("new", place)
        seen.add(road.now(place))
        files.write_text(place.parent / "next", "")  # whoever writes there next
        assert leftovers(place.parent) == []
    assert "old" in seen


def test_a_full_disk_at_any_step_leaves_the_old_state_or_the_new_one(road, stride, tmp_path):
    place = tmp_path / "at" / road.road.file
    for at in tried(road.road.name, steps(road, place), stride):
        road.begin(place)
        try:
            with faults(place.parent, at, "full"):
                road.road.write("new", place)
        except OSError as error:
            assert str(place) in str(error) and "No space left" in str(error)
        road.now(place)
        assert leftovers(place.parent) == []


def test_a_disk_that_fills_while_bytes_are_written_keeps_the_old_state(road, tmp_path):
    """The system itself refuses every byte beyond a limit: of C libraries, too."""
    if road.road.name in ("save_weights", "save(zipped=False)"):
        pytest.skip("HDF5 writes these itself and does not survive a refusal; the next test is theirs")
    place = tmp_path / "at" / road.road.file
    new = road.kept.parent.parent / "new" / road.road.file
    sizes = [path.stat().st_size for path in (new.rglob("*") if new.is_dir() else [new]) if path.is_file()]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in sorted({0, min(sizes) // 2, max(sizes) // 2, max(sizes) - 1}):
        road.begin(place)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(Exception, match=r"File too large|could not be") as caught:
                road.road.write("new", place)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        has_own = road.road.name in (
            "export_litert",
            "bundle_litertlm",
        )  # temporary files, of those who make the content
        assert f"{place} could not be written" in str(caught.value) or has_own
        assert road.now(place) == "old" and leftovers(place.parent) == []


@pytest.mark.parametrize("name", ["save_pretrained of a tokenizer", ".keras", "write_records"])
def test_processes_killed_at_random_moments(states, name, tmp_path):
    """Some of what tests/kills.py does: docs/whole_or_nothing.md."""
    found = kills.killed(states(name), tmp_path / "at" / ROADS[name].file, 3)
    assert sum(found.values()) == 3


def test_a_disk_that_is_really_full(states, tmp_path):
    if not kills.can_mount():
        pytest.skip("this process may not mount a file system")
    assert kills.filled(states("Adapters.save"), tmp_path, 4).keys() == {"old", "new"}


@pytest.mark.parametrize("name", ["save_weights", "save(zipped=False)"])
def test_weights_are_refused_before_hdf5_meets_a_full_disk(states, name, tmp_path, monkeypatch):
    """HDF5 1.14 ends the process by a signal when it closes a file on a full disk."""
    road, place = states(name), tmp_path / "at" / ROADS[name].file
    road.begin(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=30_000))
    with pytest.raises(OSError, match=r"could not be written: No space left on device \([\d,]+ bytes are needed"):
        road.road.write("new", place)
    assert road.now(place) == "old" and leftovers(place.parent) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_where_folders_cannot_be_exchanged_a_kill_is_repaired_by_the_next_reader(states, name, tmp_path, monkeypatch):
    """As on other systems than Linux, or in the current directory."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    road, place = states(name), tmp_path / "at" / "folder"
    road.begin(place)
    with faults(place.parent) as calls:
        road.road.write("new", place)
    assert road.now(place) == "new" and leftovers(place.parent) == []
    for at in tried(name, len(calls), stride=2):
        road.begin(place)
        with pytest.raises(Killed), faults(place.parent, at, "kill"):
            road.road.write("new", place)
        road.now(place)
        files.write_text(place.parent / "next", "")
        assert leftovers(place.parent) == []


def test_the_current_directory_and_links_to_folders_are_written_as_a_whole(states, tmp_path, monkeypatch):
    road, place = states("save_pretrained of a task"), tmp_path / "at" / "folder"
    road.begin(place)
    monkeypatch.chdir(place)
    road.road.write("new", ".")
    assert contents(place) == contents(Path()) == road.contents["new"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(place)
    road.road.write("old", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and road.now(place) == "old"


def test_files_of_other_names_stay_the_same_files(states, tmp_path):
    road, place = states("save_pretrained of a classifier over an embedder"), tmp_path / "at" / "folder"
    road.begin(place)
    before = (place / "notes" / "mine.txt").stat().st_ino
    assert (place / "modules.json").exists()
    road.road.write("new", place)
    assert (place / "notes" / "mine.txt").stat().st_ino == before  # who appends to it goes on
    assert not (place / "modules.json").exists() and not (place / "1_Pooling").exists()


def test_two_processes_with_the_same_pid_do_not_share_a_temporary(tmp_path, monkeypatch):
    """0.4.0 named it by the process: in containers that share a folder, one wrote into the other's file."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    first, both = threading.Barrier(2), {}

    def write(text: str):
        with files.replacing(tmp_path / "file") as part:
            both[text] = part
            part.write_text(text)
            first.wait(timeout=30)
            assert part.read_text() == text
            first.wait(timeout=30)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both["one"] != both["two"] and (tmp_path / "file").read_text() in both
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_temporary_files_pre_made_as_symlinks_are_not_written_through(tmp_path, monkeypatch):
    """Whatever name is guessed: it is made exclusively, and private."""
    target = tmp_path / "precious"
    target.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0123456789abcdef")
    (tmp_path / ".file.0123456789abcdef.tfxformer-tmp").symlink_to(target)
    with pytest.raises(FileExistsError):
        files.write_text(tmp_path / "file", "text")
    assert target.read_text() == "mine" and not (tmp_path / "file").exists()
    monkeypatch.undo()
    (tmp_path / "file").symlink_to(target)  # a link of the file's own name is replaced, not followed
    with files.replacing(tmp_path / "file") as part:
        assert stat.S_IMODE(part.parent.stat().st_mode) == 0o700
        part.write_text("text")
    assert target.read_text() == "mine" and (tmp_path / "file").read_text() == "text"


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    dead = tmp_path / ".file.0123456789abcdef.tfxformer-tmp"
    dead.mkdir()
    (dead / "file").write_text("half")
    with files.replacing(tmp_path / "alive") as part:
        part.write_text("going on")
        files.write_text(tmp_path / "other", "text")
        assert part.exists() and not dead.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "other"]


def test_permissions_are_those_that_the_user_gives_files(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "text")
        with files.replacing_folder(tmp_path / "folder") as new:
            files.write_text(new / "file", "text")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/file")]
    assert modes == [0o640, 0o750, 0o640]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "place could not be written: it is a folder; name the file to write"),
        (lambda path: os.mkfifo(path), "place could not be written: it is no regular file"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason(tmp_path, make, message):
    make(tmp_path / "place")
    with pytest.raises(OSError, match=message):
        files.write_text(tmp_path / "place", "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="below could not be written: "):
        files.write_text(tmp_path / "file" / "below", "text")
    with (
        pytest.raises(NotADirectoryError, match="file is a file: name a folder"),
        files.replacing_folder(tmp_path / "file"),
    ):
        pass


def test_home_is_expanded_and_nan_is_no_json(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_json("~/deep/file.json", {"a": 1})
    assert (tmp_path / "deep" / "file.json").read_text() == '{\n "a": 1\n}\n'
    with pytest.raises(ValueError, match=r"file.json was not written: Out of range float"):
        files.write_json("~/deep/file.json", {"a": float("nan")})
    assert "1" in (tmp_path / "deep" / "file.json").read_text()


def test_save_over_a_file_that_may_not_be_replaced_and_h5_are_refused(tmp_path):
    task = roads.model("TextClassifier", "old")
    (tmp_path / "model.keras").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=False"):
        task.save(tmp_path / "model.keras", overwrite=False)
    assert (tmp_path / "model.keras").read_text() == "mine"
    for name in ("model.h5", "model.hdf5"):
        with pytest.raises(ValueError, match="legacy HDF5"):
            task.save(tmp_path / name)
        for model in (task, task.backbone):
            with pytest.raises(ValueError, match="legacy HDF5"):
                keras.saving.save_model(model, tmp_path / "other" / name)
    with pytest.raises(ValueError, match=rf"Received: filepath={tmp_path}/model\.$"):
        task.save(tmp_path / "model")  # Keras' own words, about the path that was given
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.keras"]
