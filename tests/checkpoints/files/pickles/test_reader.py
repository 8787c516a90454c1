"""State dicts of torch.save against torch's own reader, and handmade ones against numpy; damaged ones are refused."""

import functools

import ml_dtypes
import numpy as np
import pickle_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfxformer.checkpoints import CheckpointError, PickleFile

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def open_bytes(folder, content):
    path = folder / f"{len(list(folder.iterdir()))}.bin"  # a file must not be rewritten under an open map
    path.write_bytes(content)
    return PickleFile(path)


def state_of_everything():
    """Every dtype that is read; tied, transposed, sliced, scalar and empty tensors; parameters, and buffers."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.BatchNorm1d(3))
    values = torch.randn(5, 4) * 50
    state = module.state_dict()
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
    tensors = {kind: values.abs().to(getattr(torch, kind)) for kind in kinds.split()}
    tensors |= {"parameter": torch.nn.Parameter(values), "tied": state["0.weight"], "also tied": state["0.weight"]}
    tensors |= {"transposed": values.T, "sliced": values[1:4, ::2], "last": values[4, 3], "permuted": values[None].mT}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "flat": torch.zeros(0)}
    tensors |= {"ids": torch.arange(8).expand((1, -1)), "a name with ünïcode": values[:1]}
    state.update(tensors)
    return state


@pytest.mark.reference
@ZIPPED
@pytest.mark.parametrize("plain", [True, False], ids=["dict", "OrderedDict"])
def test_tensors_are_those_of_torch_bit_for_bit(tmp_path, zipped, plain):
    import torch

    state = state_of_everything()
    assert hasattr(state, "_metadata")
    path = tmp_path / "pytorch_model.bin"
    torch.save(dict(state) if plain else state, path, _use_new_zipfile_serialization=zipped)
    wanted, read = torch.load(path, weights_only=True), PickleFile(path)
    assert list(read) == list(wanted) and len(read) == len(state)
    for name, tensor in wanted.items():
        array = read[name]
        assert str(tensor.dtype) == f"torch.{array.dtype.name}" == f"torch.{read.dtype(name).name}"
        assert array.shape == tuple(tensor.shape) == read.shape(name)
        as_bytes = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert np.ascontiguousarray(array).tobytes() == as_bytes, name
        assert not array.flags.writeable or not array.size
        if array.size > 1:  # a view, not a copy
            assert array.strides == tuple(stride * array.itemsize for stride in tensor.stride())
    assert np.shares_memory(read["tied"], read["also tied"])


@pytest.mark.reference
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_another_protocol_is_refused_by_its_number(tmp_path, protocol):
    import torch

    torch.save({"x": torch.ones(2)}, tmp_path / "x.bin", pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=f"protocol {protocol} instead of 2"):
        PickleFile(tmp_path / "x.bin")


OTHER_THINGS = (
    *("module", "tensor", "training state", "number", "sparse", "quantized", "complex", "float8", "meta"),
    *("expanded", "lazily negative", "numpy"),
)


def things_that_are_no_state_dict():
    import torch

    ones = torch.ones(2, 2)
    return {
        "module": (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear', a whole module"),
        "tensor": (ones, "holds a Tensor"),
        "training state": ({"model": {"x": ones}, "step": 3}, "its entry 'model' is a dict of 1"),
        "number": ({"x": ones, "step": 3}, "its entry 'step' is 3"),
        "sparse": ({"x": ones.to_sparse()}, "a sparse tensor"),
        "quantized": ({"x": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)}, "a quantized tensor"),
        "complex": ({"x": ones.to(torch.complex64)}, "torch.ComplexFloatStorage"),
        "float8": ({"x": ones.to(torch.float8_e4m3fn)}, "_rebuild_tensor_v3"),
        "meta": ({"x": torch.empty(2, device="meta")}, "a tensor without values"),
        "expanded": ({"x": torch.ones(1).expand(1000)}, "does not fit the 1 numbers"),
        "lazily negative": ({"x": torch.ones(2, dtype=torch.complex64).conj().imag}, "properties|Complex|does not fit"),
        "numpy": ({"x": np.ones(2)}, "numpy"),
    }


@pytest.mark.reference
@ZIPPED
@pytest.mark.parametrize("kind", OTHER_THINGS)
def test_what_torch_saves_beside_state_dicts_is_refused_by_its_name(tmp_path, kind, zipped):
    import torch

    value, message = things_that_are_no_state_dict()[kind]
    torch.save(value, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"x\.bin is not read: .*({message}).*save_pretrained"):
        PickleFile(tmp_path / "x.bin")


@pytest.mark.reference
def test_torchscript_is_refused(tmp_path):
    import torch

    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="TorchScript"):
        PickleFile(tmp_path / "x.bin")


def in_stream():
    """As torch writes it: a storage says that it is no view of another."""
    return pickle_files.stream(pickle_files.state({"x": pickle_files.tensor(of=pickle_files.storage(view=b"N"))}))


@pytest.mark.reference
@ZIPPED
def test_torch_reads_our_handmade_files(tmp_path, zipped):
    """The files of the other tests are what torch takes for its own."""
    import torch

    (tmp_path / "x.bin").write_bytes(pickle_files.archive() if zipped else in_stream())
    read = torch.load(tmp_path / "x.bin", weights_only=True)["x"].numpy()
    np.testing.assert_array_equal(read, np.arange(6, dtype="float32").reshape(2, 3))


@pytest.mark.parametrize("make", [pickle_files.archive, pickle_files.stream, in_stream])
def test_handmade_files_are_read(tmp_path, make):
    read = open_bytes(tmp_path, make())
    np.testing.assert_array_equal(read["x"], np.arange(6, dtype="float32").reshape(2, 3))
    assert not read["x"].flags.owndata
    with pytest.raises(KeyError):
        read["y"]


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((3, 2), (2, 1), 0), ((2, 3), (1, 2), 0), ((), (), 5), ((3,), (2,), 1), ((0, 4), (4, 1), 6), ((1, 6), (0, 1), 0)],
)
def test_views_are_numpys(tmp_path, shape, strides, offset):
    pickled = pickle_files.state({"x": pickle_files.tensor(shape, strides, offset)})
    flat = np.arange(6, dtype="float32")
    wanted = np.lib.stride_tricks.as_strided(flat[offset:], shape, [4 * stride for stride in strides])
    np.testing.assert_array_equal(open_bytes(tmp_path, pickle_files.archive(pickled))["x"], wanted)


def test_bfloat16_needs_no_torch(tmp_path):
    values = np.linspace(-3, 3, 6).astype(ml_dtypes.bfloat16)
    pickled = pickle_files.state({"x": pickle_files.tensor(kind="BFloat16Storage")})
    read = open_bytes(tmp_path, pickle_files.archive(pickled, {"0": values.tobytes()}))["x"]
    assert read.dtype == ml_dtypes.bfloat16 and read.tobytes() == values.tobytes()


@functools.cache
def large_content():
    entries = {f"layer.{i}.weight": pickle_files.tensor(key=str(i)) for i in range(3)}
    pickled = pickle_files.state(entries, b"}" + pickle_files.text("_metadata") + pickle_files.ORDERED_DICT + b"sb")
    keys = {str(i): pickle_files.bytes_of() for i in range(3)}
    return {
        "zip": pickle_files.archive(pickled, keys),
        "stream": pickle_files.stream(pickled, {key: (6, content) for key, content in keys.items()}),
    }


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_crash(tmp_path, data):
    """A few bytes changed, cut, removed or repeated anywhere: read as it says, or refused; never another error."""
    content = bytearray(large_content()[data.draw(st.sampled_from(["zip", "stream"]))])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "remove", "repeat", "number"]))
        if kind == "change":
            content[position] = data.draw(st.integers(0, 255))
        elif kind == "number":
            content[position : position + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"]))
        else:
            end = position + data.draw(st.integers(1, 40))
            content[position:end] = {"cut": b"", "remove": b"", "repeat": content[position:end] * 2}[kind]
            if kind == "cut":
                del content[position:]
        if not content:
            return
    try:
        read = open_bytes(tmp_path, bytes(content))
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return
    for name in read:
        assert read[name].shape == read.shape(name) and read[name].dtype == read.dtype(name)
