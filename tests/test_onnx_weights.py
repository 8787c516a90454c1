"""The reader of ONNX weights, on files that google.protobuf writes from the format's own field numbers."""

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfxformer.samples.formats.onnx_weights import dequantized, read_graph

_TYPES = {"int64": 3, "string": 9, "message": 11, "bytes": 12, "int32": 5, "float": 2}
# onnx.proto: message -> (name, number, type, repeated, message of the field)
_MESSAGES = {
    "Tensor": (
        ("dims", 1, "int64", True, None),
        ("data_type", 2, "int32", False, None),
        ("float_data", 4, "float", True, None),
        ("int32_data", 5, "int32", True, None),
        ("name", 8, "string", False, None),
        ("raw_data", 9, "bytes", False, None),
    ),
    "Node": (
        ("input", 1, "string", True, None),
        ("output", 2, "string", True, None),
        ("name", 3, "string", False, None),
        ("op_type", 4, "string", False, None),
    ),
    "Graph": (("node", 1, "message", True, "Node"), ("initializer", 5, "message", True, "Tensor")),
    "Model": (
        ("ir_version", 1, "int64", False, None),
        ("producer_name", 2, "string", False, None),
        ("graph", 7, "message", False, "Graph"),
    ),
}


@pytest.fixture(scope="module")
def messages():
    file = descriptor_pb2.FileDescriptorProto(name="onnx_test.proto", package="onnx_test", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated, other in fields:
            added = message.field.add(name=field, number=number, type=_TYPES[kind], label=3 if repeated else 1)
            if other:
                added.type_name = f".onnx_test.{other}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"onnx_test.{name}")) for name in _MESSAGES
    }


@pytest.fixture
def written(messages, tmp_path):
    """A file with a quantized kernel, its scale as floats and its zero point as integers, and one product."""
    tensor, model = messages["Tensor"], messages["Model"](ir_version=8, producer_name="test")
    kernel = np.arange(-6, 6, dtype="int8").reshape(3, 4)
    model.graph.initializer.append(tensor(name="k_quantized", dims=[3, 4], data_type=3, raw_data=kernel.tobytes()))
    model.graph.initializer.append(tensor(name="k_scale", data_type=1, float_data=[0.5]))
    model.graph.initializer.append(tensor(name="k_zero_point", data_type=3, int32_data=[2]))
    model.graph.node.append(messages["Node"](name="/enc/q/MatMul_quant", op_type="MatMulInteger", input=["x", "k"]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path, kernel


def test_nodes_and_weights(written):
    path, kernel = written
    graph = read_graph(path)
    assert [(node.name, node.operation, node.inputs) for node in graph.nodes] == [
        ("/enc/q/MatMul_quant", "MatMulInteger", ("x", "k"))
    ]
    np.testing.assert_array_equal(dequantized(graph, "k"), (kernel.astype("float32") - 2) * 0.5)


def test_cut_and_foreign_files_are_refused(written):
    path, _ = written
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match="it is cut, or no ONNX file"):
        read_graph(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no graph of ONNX"):
        read_graph(path)
    path.write_bytes(b"\x0f\x00")
    with pytest.raises(ValueError, match="wire type 7"):
        read_graph(path)
