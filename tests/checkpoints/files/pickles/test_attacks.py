"""Pickles that run code where Python reads them: each is refused by what it names, and nothing of it runs."""

import pickle
import subprocess

import pickle_files as made
import pytest
from pickle_files import name, text, tuple_of

from tfxformer.checkpoints import CheckpointError, PickleFile


def call(module, attribute, *arguments):
    return name(module, attribute) + tuple_of(*arguments) + b"R"


def entry(value):
    """The attack as a value of a dict."""
    return made.PROTOCOL + b"}" + text("y") + value + b"s."


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def spaces(shell):
    """The command as exec would take it."""
    return tuple_of(*map(text, shell.split()))


# A shell command that leaves a file -> a pickle that runs it; and what our refusal names.
RUNS = {
    "os.system": (lambda shell: entry(call("os", "system", text(shell))), r"'os\.system'"),
    "posix.system": (lambda shell: entry(call("posix", "system", text(shell))), r"'posix\.system'"),
    "at the root": (lambda shell: made.PROTOCOL + call("os", "system", text(shell)) + b".", r"'os\.system'"),
    "popped before the state": (
        lambda shell: made.PROTOCOL + call("os", "system", text(shell)) + b"0}.",
        r"'os\.system'",
    ),
    "for a key": (
        lambda shell: made.PROTOCOL + b"}" + call("os", "system", text(shell)) + b"Ns.",
        r"'os\.system'",
    ),
    "in _metadata": (
        lambda shell: (
            made.PROTOCOL + made.ORDERED_DICT + b"}" + text("_metadata") + call("os", "system", text(shell)) + b"sb."
        ),
        r"'os\.system'",
    ),
    "in a tuple that is dropped": (
        lambda shell: made.PROTOCOL + b"(" + call("os", "system", text(shell)) + b"1}.",
        r"'os\.system'",
    ),
    "eval": (
        lambda shell: entry(call("builtins", "eval", text(f"__import__('os').system({shell!r})"))),
        r"'builtins\.eval'",
    ),
    "exec": (
        lambda shell: entry(call("builtins", "exec", text(f"import os; os.system({shell!r})"))),
        r"'builtins\.exec'",
    ),
    "Python 2's eval": (
        lambda shell: entry(call("__builtin__", "eval", text(f"__import__('os').system({shell!r})"))),
        r"'__builtin__\.eval'",
    ),
    "chain of getattr": (
        lambda shell: entry(
            call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system"))
            + tuple_of(text(shell))
            + b"R"
        ),
        r"'builtins\.getattr'",
    ),
    "methodcaller": (
        lambda shell: entry(
            call("operator", "methodcaller", text("system"), text(shell))
            + tuple_of(call("importlib", "import_module", text("os")))
            + b"R"
        ),
        r"'operator\.methodcaller'",
    ),
    "partial": (
        lambda shell: entry(call("functools", "partial", name("os", "system"), text(shell)) + b")R"),
        r"'functools\.partial'",
    ),
    "map": (
        lambda shell: entry(
            call("builtins", "list", call("builtins", "map", name("os", "system"), tuple_of(text(shell))))
        ),
        r"'builtins\.list'",
    ),
    "unpickles within": (
        lambda shell: entry(
            call(
                "_pickle",
                "loads",
                call("_codecs", "encode", text(f"cos\nsystem\n(V{shell}\ntR."), text("latin1")),
            )
        ),
        r"'_pickle\.loads'",
    ),
    "globals of a function": (
        lambda shell: entry(
            call(
                "builtins",
                "eval",
                text(f"system({shell!r})"),
                call("builtins", "vars", call("importlib", "import_module", text("os"))),
            )
        ),
        r"'builtins\.eval'",
    ),
    "INST": (lambda shell: made.PROTOCOL + b"(" + text(shell) + b"ios\nsystem\n.", r"'os\.system' \(INST\)"),
    "OBJ": (lambda shell: made.PROTOCOL + b"(" + name("subprocess", "Popen") + spaces(shell) + b"o.", r"subprocess"),
    "NEWOBJ, then REDUCE": (
        lambda shell: made.PROTOCOL + name("builtins", "list") + b")\x810" + call("os", "system", text(shell)) + b".",
        r"'builtins\.list'",
    ),
    "STACK_GLOBAL": (
        lambda shell: made.PROTOCOL + text("os") + text("system") + b"\x93" + tuple_of(text(shell)) + b"R.",
        "STACK_GLOBAL",
    ),
    "protocol 4": (
        lambda shell: b"\x80\x04" + short("os") + short("system") + b"\x93" + tuple_of(text(shell)) + b"R.",
        "protocol 4",
    ),
    "protocol 0": (lambda shell: b"cos\nsystem\n(S'" + shell.encode() + b"'\ntR.", r"'os\.system'"),
    "BUILD with __setstate__": (
        lambda shell: (
            made.PROTOCOL
            + call("types", "SimpleNamespace")
            + b"}"
            + text("__setstate__")
            + name("os", "system")
            + b"sb"
            + text(shell)
            + b"b."
        ),
        r"'types\.SimpleNamespace'",
    ),
    "a dotted name": (
        lambda shell: b"\x80\x04" + short("os") + short("path.os.system") + b"\x93" + tuple_of(text(shell)) + b"R.",
        "protocol 4",
    ),
}

# Names and operations that reach for something without running it by themselves; what our refusal names.
REACHES = {
    "a module of ours": (entry(name("tfxformer.files", "replacing")), r"'tfxformer\.files\.replacing'"),
    "a class with a similar name": (entry(name("collections", "OrderedDict.fromkeys")), "OrderedDict.fromkeys'"),
    "a known function's globals": (entry(name("torch._utils", "_rebuild_tensor_v2.__globals__")), "__globals__'"),
    "torch.load": (entry(call("torch", "load", text("/etc/passwd"))), r"'torch\.load'"),
    "torch.hub": (entry(call("torch.hub", "load", text("owner/name"))), r"'torch\.hub\.load'"),
    "storage from bytes": (entry(call("torch.storage", "_load_from_bytes", text("x"))), "_load_from_bytes'"),
    "numpy arrays": (entry(call("numpy.core.multiarray", "_reconstruct")), "_reconstruct'"),
    "a file to open": (entry(call("io", "open", text("/etc/passwd"))), r"'io\.open'"),
    "extension 1": (made.PROTOCOL + b"\x82\x01.", "EXT1"),
    "extension 2": (made.PROTOCOL + b"\x83\x01\x00.", "EXT2"),
    "extension 4": (made.PROTOCOL + b"\x84\x01\x00\x00\x00.", "EXT4"),
    "NEWOBJ": (made.PROTOCOL + name("collections", "OrderedDict") + b")\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (made.PROTOCOL + name("collections", "OrderedDict") + b")}\x92.", "NEWOBJ_EX"),
    "persistent id as text": (made.PROTOCOL + b"Pmodule\n.", "PERSID"),
    "persistent id of a module": (
        made.PROTOCOL + tuple_of(text("module"), text("os"), text("a.py"), text("system()")) + b"Q.",
        "refers to a tuple",
    ),
    "persistent id with a path": (made.state({"x": made.tensor(key="../../etc/passwd")}), "lacks the storage"),
    "REDUCE of a text": (made.PROTOCOL + text("os.system") + b")R.", "calls 'os.system'"),
    "REDUCE of a storage class": (made.PROTOCOL + name("torch", "FloatStorage") + b")R.", "calls torch.FloatStorage"),
    "REDUCE without a tuple": (made.PROTOCOL + name("collections", "OrderedDict") + b"}R.", "with a dict"),
    "REDUCE with too many arguments": (
        made.PROTOCOL + name("torch._utils", "_rebuild_parameter") + tuple_of(*[b"N"] * 9) + b"R.",
        "with 9 arguments",
    ),
    "BUILD of a dict": (made.PROTOCOL + made.ORDERED_DICT + b"}" + text("__class__") + b"Nsb.", "sets the state"),
    "BUILD of a tensor": (entry(made.tensor() + b"}b"), "sets the state of a Tensor"),
    "BUILD of a class": (entry(name("torch", "FloatStorage") + b"}b"), "sets the state of a Name"),
    "out-of-band buffers": (made.PROTOCOL + b"\x97.", "NEXT_BUFFER"),
    "a set": (made.PROTOCOL + b"\x8f.", "EMPTY_SET"),
    "bytes of 2**60": (made.PROTOCOL + b"\x8e" + b"\x00" * 7 + b"\x10.", "BINBYTES8"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "bare"])
@pytest.mark.parametrize("attack", RUNS)
def test_what_python_would_run_is_refused_and_does_not(attack, zipped, tmp_path):
    make, message = RUNS[attack]
    sentinel = tmp_path / "sentinel"
    payload = make(f"touch {sentinel}")
    python_runs(payload, sentinel)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(made.archive(payload) if zipped else payload)
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin is not read: .*{message}.*save_pretrained"):
        PickleFile(path)
    assert not sentinel.exists()


def python_runs(payload, sentinel):
    """The attack is one: Python's own unpickler leaves the file."""
    try:
        started = pickle.loads(payload)
    except Exception:  # some run, and then end in an error
        started = None
    if isinstance(started, subprocess.Popen):
        started.wait()
    assert sentinel.exists()
    sentinel.unlink()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("attack", REACHES)
def test_what_reaches_beyond_tensors_is_refused(attack, zipped, tmp_path):
    payload, message = REACHES[attack]
    path = tmp_path / "x.bin"
    path.write_bytes(made.archive(payload) if zipped else made.stream(payload))
    with pytest.raises(CheckpointError, match=message if zipped or "path" not in attack else "is that of no tensor"):
        PickleFile(path)


def test_enough_of_them():
    assert len(RUNS) + len(REACHES) >= 30
