"""Writes docs/installs.md: what each way to install the package brings, and that it is enough; run by hand.

    python tests/installs.py

Each way gets a fresh virtual environment. In that of the base install, LiteRT files made beforehand are opened, run and
read (light.py); in that of [train] a tiny classifier is made, fitted, saved, exported and run.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "installs.md"
HEAVY = ("keras", "tensorflow")
LIGHT = ROOT / "tests" / "light.py"
sys.path.insert(0, str(ROOT / "tests"))

STORY = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import keras, numpy as np, tiny
from tfxformer import compression, export, tasks
folder = sys.argv[1]
model = tasks.TextClassifier(tiny.backbone(), ["negative", "positive"], tokenizer=tiny.tokenizer(folder))
prune = compression.Prune(compression.ConstantSparsity(0.5, 0))
model.fit(tiny.TEXTS, tiny.LABELS, epochs=1, batch_size=8, verbose=0, callbacks=[prune])
model.save(folder + "/model.keras")
again = keras.saving.load_model(folder + "/model.keras")
again.save_pretrained(folder + "/checkpoint")
again = tasks.TextClassifier.from_pretrained(folder + "/checkpoint")
export.export_litert(again, folder + "/model.tflite", "float32", sequence_length=16)
found = export.LiteRTModel(folder + "/model.tflite").predict(tiny.TEXTS[:2])
np.testing.assert_allclose(found, model.predict(tiny.TEXTS[:2], verbose=0), atol=1e-4)
"""
HEAD = """# What an install brings
Each in a fresh virtual environment, by `python tests/installs.py`, with Python {python} on {platform}. Megabytes are
those of site-packages without pip and setuptools; seconds are the least of five fresh processes.

| | packages | MB | `import` of what runs a file (s) | `tfxformer --help` (s) |
|---|---|---|---|---|
"""


def environment(work: Path, name: str, requirement: str) -> Path:
    """A fresh virtual environment with the package; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
    programs = work / name / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", requirement], check=True)
    return programs


def run(*command, **options) -> str:
    """What a program prints; what it complains of is shown where it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def source(work: Path) -> Path:
    """The sources as git has them, and nothing that was built among them."""
    folder = work / "source"
    folder.mkdir()
    for name in run(
        "git", "ls-files", "tfxformer", "setup.py", "pyproject.toml", "README.md", "LICENSE", cwd=ROOT
    ).splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def row(title: str, programs: Path) -> str:
    """A line of the table."""
    size = (
        "import pathlib, sysconfig; root = pathlib.Path(sysconfig.get_paths()['purelib']); print(sum("
        "p.stat().st_size for p in root.rglob('*') if p.is_file() and p.relative_to(root).parts[0].partition('-')[0] "
        "not in ('pip', 'setuptools', 'pkg_resources', '_distutils_hack', '__pycache__')))"
    )
    megabytes = int(run(programs / "python", "-c", size)) / 1e6
    listed = json.loads(run(programs / "pip", "list", "--format", "json"))
    packages = sum(one["name"] not in ("pip", "setuptools") for one in listed)
    imports = least(programs / "python", "-c", "import tfxformer.runtime")
    shown = least(programs / "tfxformer", "--help")
    return f"| {title} | {packages} | {megabytes:.0f} | {imports:.2f} | {shown:.2f} |\n"


def least(*command) -> float:
    """Seconds of a command: the least of five runs, after one."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        run(*command)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> None:
    """Installs, tries and measures."""
    import litert_files

    files = [litert_files.classifier("dynamic_int8"), litert_files.decoder(), litert_files.exported_seq2seq()[0]]
    table = HEAD.format(python=".".join(map(str, sys.version_info[:3])), platform=sys.platform)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = source(work)
        base = environment(work, "base", str(sources))
        found = json.loads(run(base / "python", LIGHT, *files, cwd=work))
        wanted = json.loads(run(sys.executable, LIGHT, *files, *HEAVY, cwd=work))
        for key in ("probabilities", "text", "prompt", "operators", "predict", "generate"):
            assert found[key] == wanted[key], f"{key}: {found[key]} in the base install, {wanted[key]} here"
        assert len(found["refusals"]) == 5 and not set(HEAVY) & set(found["modules"])
        table += row("`pip install tfxformer`", base)
        train = environment(work, "train", f"{sources}[train]")
        run(train / "python", "-c", STORY, work, cwd=work)
        table += row('`pip install "tfxformer[train]"`', train)
    TARGET.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
