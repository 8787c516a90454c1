"""The Kotlin of the Android projects: compiled, and what it makes of a file's recorded calls is Python's answer.

The compiler is a package of its own, and needs Java. Name the folder that it is in by TFXFORMER_KOTLIN:
    pip install --no-deps --target kotlin -r tests/clients/requirements-kotlin.txt
    TFXFORMER_KOTLIN=kotlin pytest tests/clients/test_kotlin.py
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import android_stubs
import litert_files
import pytest

from tfxformer.runtime import write_app

FOLDER = os.environ.get("TFXFORMER_KOTLIN")
JARS = [str(jar) for jar in sorted(Path(FOLDER or "/nowhere").glob("run_kotlin_kernel/jars/*.jar"))]
MOST_SECONDS = 3600  # a compiler on a busy machine

pytestmark = [
    pytest.mark.client,
    pytest.mark.skipif(not (JARS and shutil.which("java")), reason="TFXFORMER_KOTLIN names no Kotlin, or no java"),
]


def java(*arguments):
    command = ["java", "-cp", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def kotlin(sources, output, classes=()):
    compiler = [os.pathsep.join(JARS), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect"]
    java(*compiler, "-cp", os.pathsep.join([*map(str, classes), *JARS]), "-d", output, *sources)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """{task: project}, and the classes of the part without Android, tests included."""
    folder = tmp_path_factory.mktemp("kotlin")
    files = {
        "text-classification": litert_files.exported("float32", 8, 16)[0],
        "text-embedding": litert_files.embedder(),
        "token-classification": litert_files.other("tag")[1],
        "question-answering": litert_files.other("answer")[1],
        "text-generation": litert_files.decoder(),
    }
    for task, path in files.items():
        write_app(path, folder / task, "android", ["good film"])
    sources = (folder / "text-generation" / "answers" / "src").glob("*/kotlin")
    kotlin([android_stubs.write(folder / "stubs"), *sources], folder / "classes")
    return {task: folder / task for task in files}, folder / "classes"


@pytest.mark.road
def test_answers_are_those_of_python(answers, tmp_path):
    projects, classes = answers
    folders = [project / "answers" / "src" / "test" / "resources" for project in projects.values()]
    classpath = os.pathsep.join([str(classes), *JARS])
    found = java(classpath, "textmodel.VectorsKt", *folders).splitlines()
    assert [line.partition(":")[0] for line in found] == list(projects), found
    assert all(line.endswith(" answers, 0 differences") and ": 0 answers" not in line for line in found), found
    # Another answer is a difference.
    other = tmp_path / "other"
    shutil.copytree(folders[0], other)
    vectors = json.loads((other / "vectors.json").read_text(encoding="utf-8"))
    vectors["answers"][0]["values"][0] += 0.01
    (other / "vectors.json").write_text(json.dumps(vectors), encoding="utf-8")
    assert java(classpath, "textmodel.VectorsKt", other).splitlines()[-1].endswith(" 1 differences")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_an_app_compiles_against_stubs(answers, tmp_path, task):
    projects, classes = answers
    stubs = android_stubs.write(tmp_path / "stubs")
    kotlin([stubs, *(projects[task] / "app" / "src").glob("*/kotlin")], tmp_path / "app", [classes])
    assert list((tmp_path / "app").rglob("TextModel.class"))
