"""tpu-check and fit-estimate on the command line."""

import importlib.util
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tfxformer.cli import tpu
from tfxformer.cli.main import app

ABSENT = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]


def needs_compiler(test):
    absent = pytest.mark.skipif(
        bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[tpu-check]"'
    )
    return pytest.mark.extra(absent(test))


def run(*arguments):
    # A narrow terminal cuts long names of options.
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


@needs_compiler
def test_a_folder_fits_or_is_refused(tiny):
    options = ["--task", "masked-lm", "--sequence-length", 16, "--batch-size", "8,2097152"]
    result = run("tpu-check", "--model", tiny, *options, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["dtype"] == "mixed_bfloat16"
    assert [(step["step"], step["batch_size"], step["fits"]) for step in found["steps"]] == [
        ("train", 8, True),
        ("train", 2097152, False),
        ("eval", 8, True),
    ]
    assert found["steps"][1]["needed_bytes"] > found["memory_bytes"]
    assert "nothing was run on a TPU" in found["notes"][0]
    lines = result.stderr.splitlines()
    assert any("train step, batch 8: compiling for TPU v5 lite" in line for line in lines)
    assert "error: The train step does not fit at batch 2097152" in lines[-1]
    assert "exceeds available HBM" in lines[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "bert-gigantic", "--task", "masked-lm"], "Unknown preset 'bert-gigantic'; known: "),
        (["--model", "bert-tiny"], "give --task"),
        (["--model", "bert-tiny", "--task", "sorting"], "Unknown task 'sorting'; known: "),
        (["--model", "gpt-nano", "--task", "masked-lm"], "no model for masked-lm, but for causal-lm"),
        (["--model", "bert-tiny", "--task", "causal-lm"], "no model for causal-lm, but for masked-lm"),
        (["--model", "bert-tiny", "--task", "masked-lm", "--batch-size", "many"], "wanted a number"),
        (["--model", "bert-tiny", "--task", "masked-lm", "--mesh", "eight"], "--mesh 'eight': wanted (data)x(model)"),
        (
            ["--model", "bert-tiny", "--task", "masked-lm", "--mesh", "1x8"],
            "needs Keras on JAX, and it runs on tensorflow",
        ),
        (["--model", "bert-tiny", "--task", "masked-lm", "--sequence-length", "4096"], "must be 1 to 512"),
    ],
)
def test_wrong_names_are_one_line(options, said):
    result = run("tpu-check", *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "abacus"], "Unknown GPU 'abacus'; known: "),
        (["--gpu", "t4", "--memory-gib", "15"], "--gpu and --memory-gib say the same"),
        (["--mesh", "1x8"], "needs Keras on JAX, and it runs on tensorflow"),
    ],
)
def test_wrong_gpus_are_one_line(options, said):
    result = run("fit-estimate", "--model", "bert-tiny", "--task", "masked-lm", *options)
    assert result.exit_code == 1
    assert said in result.stderr.splitlines()[-1]


@needs_compiler
@pytest.mark.slow
def test_a_mesh_on_jax():
    """In a process of its own, where --mesh chooses the backend before Keras is imported."""
    code = "from tfxformer.cli.main import main; main()"
    options = ["--model", "gpt-nano", "--task", "causal-lm", "--topology", "v5e:2x2", "--mesh", "1x4"]
    command = [
        sys.executable,
        "-c",
        code,
        "tpu-check",
        *options,
        "--sequence-length",
        "16",
        "--batch-size",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert (found["mesh"], found["chips"], found["fits"]) == ([1, 4], 4, True)
    steps = {step["step"]: step for step in found["steps"]}
    assert list(steps) == ["train", "eval", "generate: prompt", "generate: token"]
    assert all(step["collectives"]["all-reduce"]["count"] for step in steps.values())


@pytest.mark.parametrize("command", ["tpu-check", "fit-estimate"])
def test_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout and "--gradient-checkpointing" in result.stdout


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("bert-tiny", "masked-lm"),
        ("bert-tiny", "text-classification"),
        pytest.param("bert-tiny", "token-classification", marks=pytest.mark.slow),
        pytest.param("bert-tiny", "question-answering", marks=pytest.mark.slow),
        pytest.param("bert-tiny", "text-embedding", marks=pytest.mark.slow),
        pytest.param("gpt-nano", "causal-lm", marks=pytest.mark.slow),
    ],
)
def test_every_task_s_train_step_takes_the_specs_of_its_batch(model, task):
    from tfxformer.training.memory import lowering

    opened = tpu.open_for_training(model, task, 32, None, False)
    opened.compile()
    step = lowering.training_steps(opened, tpu.batch_spec(opened, 32))["train"]
    assert lowering.Lowering(opened, step).variable_bytes > 0
    assert [step.name for step, _ in tpu.generate_steps(opened, 32)] == (
        ["generate: prompt", "generate: token"] if task == "causal-lm" else []
    )
