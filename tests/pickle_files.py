"""Files of torch.save written by hand, operation by operation: good ones, and those that lie or attack."""

import io
import struct
import zipfile

import numpy as np

PROTOCOL = b"\x80\x02"
MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def sizes(values) -> bytes:
    return tuple_of(*map(number, values))


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


ORDERED_DICT = name("collections", "OrderedDict") + b")R"


def storage(key="0", numel=6, kind="FloatStorage", view=b"") -> bytes:
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel), view) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, *, key="0", numel=6, kind="FloatStorage", of=None) -> bytes:
    arguments = (of or storage(key, numel, kind), number(offset), sizes(shape), sizes(strides), b"\x89", ORDERED_DICT)
    return name("torch._utils", "_rebuild_tensor_v2") + tuple_of(*arguments) + b"R"


def state(entries=None, after=b"") -> bytes:
    """A pickle of a state dict; `entries` are pickled values by name, `after` what follows the last one."""
    items = b"".join(text(key) + value for key, value in (entries or {"x": tensor()}).items())
    return PROTOCOL + ORDERED_DICT + b"(" + items + b"u" + after + b"."


def bytes_of(count=6, dtype="<f4") -> bytes:
    return np.arange(count, dtype=dtype).tobytes()


def archive(pickle=None, storages=None, *, extra=(), compression=zipfile.ZIP_STORED, order=b"little") -> bytes:
    """A zip as torch.save writes it; `extra` are further (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        opened.writestr("archive/data.pkl", state() if pickle is None else pickle)
        opened.writestr("archive/byteorder", order)
        for key, content in ({"0": bytes_of()} if storages is None else storages).items():
            opened.writestr(f"archive/data/{key}", content)
        for path, content in extra:
            opened.writestr(zipfile.ZipInfo(path), content)
        opened.writestr("archive/version", b"3\n")
    return file.getvalue()


def stream(pickle=None, storages=None, *, magic=MAGIC, little=b"\x88", keys=None) -> bytes:
    """The stream of torch before 1.6; `storages` are key -> (count, bytes)."""
    storages = {"0": (6, bytes_of())} if storages is None else storages
    system = PROTOCOL + b"}" + text("little_endian") + little + b"s."
    listed = b"".join(map(text, storages if keys is None else keys))
    head = PROTOCOL + number(magic) + b"." + PROTOCOL + number(1001) + b"." + system
    head += (state() if pickle is None else pickle) + PROTOCOL + b"](" + listed + b"e."
    return head + b"".join(struct.pack("<q", count) + content for count, content in storages.values())


_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage", "int64": "LongStorage"}


def write(path, tensors) -> None:
    """A state dict of numpy arrays, each in a storage of its own."""
    entries, storages = {}, {}
    for index, (key, array) in enumerate(tensors.items()):
        strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides][: array.ndim]
        kind = _KINDS[array.dtype.name]
        entries[key] = tensor(array.shape, strides, key=str(index), numel=array.size, kind=kind)
        storages[str(index)] = array.tobytes()
    path.write_bytes(archive(state(entries), storages))
