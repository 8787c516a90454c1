"""Writes docs/whole_or_nothing.md: kills by the system at random moments, and disks that are really full.

    python tests/kills.py [--kills 30] [--levels 12] [--only ROAD]

For each road of tests/roads.py a process writes the new state over the old one and is killed (SIGKILL) at a random
moment; and it writes to a small file system with less and less space. Each time the place must hold the old state or
the new one, byte by byte. Ends with an error otherwise. Full disks need the right to mount one (root).
"""

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import roads

from tfxformer import files

TARGET = Path(__file__).parent.parent / "docs" / "whole_or_nothing.md"
HEAD = """# Whole or nothing
What stood at each place after its writer was killed at a random moment, or had written to a disk with less and less
space, as `python tests/kills.py` found it: the old state or the new one, byte by byte, and never anything
else. (A full disk refuses, and the old state stays.)
"""
REFUSED, WRITTEN = 3, 0  # exit codes of a writer


def start(states: roads.States, place: Path) -> int:
    """A process that writes the new state; returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        if states.road.name == "export_litert":  # TensorFlow converts in no forked process: its last step, then
            files.write_bytes(place, (states.kept.parent.parent / "new" / place.name).read_bytes())
        else:
            states.road.write("new", place)
        code = WRITTEN
    except OSError as error:
        if f"{place} could not be written: No space left" in str(error):
            code = REFUSED
        else:
            print(f"{states.road.name}: {error!r}", file=sys.stderr)
    finally:
        os._exit(code)


def check_clean(states: roads.States, place: Path) -> None:
    """The next writer removes what a killed one has left."""
    files.write_text(place.parent / "next", "")
    assert roads.leftovers(place.parent) == [], states.road.name


def killed(states: roads.States, place: Path, kills: int) -> collections.Counter:
    """The states after so many kills."""
    found, chance = collections.Counter(), random.Random(0)
    states.begin(place)
    begin = time.perf_counter()
    assert os.waitstatus_to_exitcode(os.waitpid(start(states, place), 0)[1]) == WRITTEN
    seconds = time.perf_counter() - begin
    for _ in range(kills):
        states.begin(place)
        number = start(states, place)
        time.sleep(chance.uniform(0, seconds))
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        found[states.now(place)] += 1
        check_clean(states, place)
    return found


def filled(states: roads.States, disk: Path, levels: int) -> collections.Counter:
    """The states after writing with less and less space on a disk of its own."""
    found = collections.Counter()
    place = disk / "at" / states.road.file
    sizes = [path.stat().st_size for path in states.kept.parent.parent.rglob("*") if path.is_file()]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2 * sum(sizes) + 2**20}", "tmpfs", str(disk)], check=True)
    try:
        for level in range(levels):
            (disk / "filler").unlink(missing_ok=True)
            states.begin(place)
            left = 4096 * round(level * (sum(sizes) / 4096 + 16) / (levels - 1))
            with (disk / "filler").open("wb") as filler:
                filler.write(bytes(max(0, shutil.disk_usage(disk).free - left)))
            code = os.waitstatus_to_exitcode(os.waitpid(start(states, place), 0)[1])
            now = states.now(place)
            assert (code, now) in ((REFUSED, "old"), (WRITTEN, "new"), (REFUSED, "new")), (states.road.name, code, now)
            assert roads.leftovers(disk) == []
            found[now] += 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return found


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", folder]
        try:
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return False
        except OSError:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--levels", type=int, default=12)
    parser.add_argument("--only", choices=roads.ROADS)
    options = parser.parse_args()
    lines, mountable = [], can_mount()
    for name in [options.only] if options.only else roads.ROADS:
        with tempfile.TemporaryDirectory() as scratch:
            states = roads.States.of(roads.ROADS[name], Path(scratch) / "states")
            found = killed(states, Path(scratch) / "kills" / "at" / states.road.file, options.kills)
            (Path(scratch) / "disk").mkdir()
            full = filled(states, Path(scratch) / "disk", options.levels) if mountable else None
        cells = [f"{count['old']} old, {count['new']} new" if count else "not tried" for count in (found, full)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if not options.only:
        head = [HEAD, f"| road | {options.kills} kills | {options.levels} fillings of a disk |", "|---|---|---|"]
        TARGET.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
