"""What travels inside a file: MediaPipe's model metadata, our own entry, and associated files.

The metadata table is written field by field with the flatbuffers builder, after metadata_schema.fbs of
https://github.com/google-ai-edge/mediapipe/tree/master/mediapipe/tasks/metadata; the numbers are its slots.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib

import flatbuffers

from tfxformer.runtime.format import checksum, flatbuffer

MEDIAPIPE_ENTRY, OWN_ENTRY = "TFLITE_METADATA", "tfxformer"
MEDIAPIPE_INPUTS = {"token_ids": "ids", "padding_mask": "mask", "segment_ids": "segment_ids"}
CHECKSUM = "checksum"  # in our entry
LABELS, VOCABULARY, TOKENIZER = "labels.txt", "vocab.txt", "tokenizer.json"
MOST_FILE_BYTES = 256 * 2**20  # of an associated file; the largest tokenizers have 35 MB
# What zipfile raises for archives that are damaged or of a kind it does not read.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError)

# table: (number of fields, {field: slot})
_MODEL = (8, {"name": 0, "description": 1, "version": 2, "subgraphs": 3, "min_parser_version": 7})
_SUBGRAPH = (10, {"inputs": 2, "outputs": 3, "input_process_units": 5})
_TENSOR = (7, {"name": 0, "description": 1, "content": 3, "associated_files": 6})
_CONTENT = (3, {"type": 0, "properties": 1})
_PROCESS_UNIT = (2, {"type": 0, "options": 1})
_BERT_TOKENIZER = (1, {"vocabulary": 0})
_FILE = (5, {"name": 0, "description": 1, "type": 2})
_FEATURE_PROPERTIES, _BERT_TOKENIZER_OPTIONS = 1, 4  # union members
_AXIS_LABELS, _VOCABULARY_FILE = 2, 5  # AssociatedFileType


def _table(builder, kind, bytes_fields=(), **fields):
    """Writes a table; strings and lists of tables become offsets, ints in `bytes_fields` one-byte scalars."""
    count, slots = kind
    offsets = {}
    for name, value in fields.items():
        if isinstance(value, str):
            offsets[name] = builder.CreateString(value)
        elif isinstance(value, list):
            builder.StartVector(4, len(value), 4)
            for item in reversed(value):
                builder.PrependUOffsetTRelative(item)
            offsets[name] = builder.EndVector()
        else:
            offsets[name] = value
    builder.StartObject(count)
    for name, value in offsets.items():
        if name in bytes_fields:
            builder.PrependUint8Slot(slots[name], value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slots[name], value, 0)
    return builder.EndObject()


def mediapipe_metadata(input_order: list[str], output: str, name: str, description: str, labelled: bool) -> bytes:
    """MediaPipe's model metadata of a BERT file.

    Args:
        input_order: batch keys in the order of the subgraph's inputs: MediaPipe zips the two lists.
        output: name of the one output.
        name, description: of the model.
        labelled: bool, whether `labels.txt` names the output's columns.
    """
    builder = flatbuffers.Builder(1024)

    def file(file_name, about, kind):
        return _table(builder, _FILE, ("type",), name=file_name, description=about, type=kind)

    def tensor(tensor_name, about, files=()):
        builder.StartObject(0)  # FeatureProperties has no fields
        properties = builder.EndObject()
        content = _table(builder, _CONTENT, ("type",), type=_FEATURE_PROPERTIES, properties=properties)
        fields = {"associated_files": list(files)} if files else {}
        return _table(builder, _TENSOR, name=tensor_name, description=about, content=content, **fields)

    vocabulary = file(VOCABULARY, "Vocabulary of the BERT tokenizer.", _VOCABULARY_FILE)
    options = _table(builder, _BERT_TOKENIZER, vocabulary=[vocabulary])
    unit = _table(builder, _PROCESS_UNIT, ("type",), type=_BERT_TOKENIZER_OPTIONS, options=options)
    inputs = [tensor(MEDIAPIPE_INPUTS[key], key) for key in input_order]
    files = [file(LABELS, "Labels of the output's columns.", _AXIS_LABELS)] if labelled else []
    outputs = [tensor(output, "Output of the model.", files)]
    subgraph = _table(builder, _SUBGRAPH, inputs=inputs, outputs=outputs, input_process_units=[unit])
    root = _table(
        builder, _MODEL, name=name, description=description, version="v1", subgraphs=[subgraph],
        min_parser_version="1.1.0",
    )  # fmt: skip
    builder.Finish(root, b"M001")
    return bytes(builder.Output())


def attach(content: bytes, entries: dict[str, bytes], files: dict[str, str], edit=None) -> bytes:
    """Adds metadata entries to a (finished, quantized) file, drops double constants, appends files as a zip.

    Args:
        content: the .tflite file; quantizers drop what is appended, so they come first.
        entries: metadata by name; our own says what the digest of the whole file is.
        files: text files by name; uncompressed, as MediaPipe maps them.
        edit: None, or a function changing the unpacked model in place.
    """
    model = flatbuffer.read(content)
    if edit is not None:
        edit(model)
    flatbuffer.share_buffers(model)
    for name, data in entries.items():
        flatbuffer.set_metadata(model, name, data)
    output = io.BytesIO(flatbuffer.write(model))
    if files:
        with zipfile.ZipFile(output, "a", zipfile.ZIP_STORED) as archive:
            for name, text in files.items():
                # A fixed date: the same model gives the same bytes.
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text.encode("utf-8"))
    whole = bytearray(output.getbuffer())
    if OWN_ENTRY in entries:
        checksum.sign(whole)
    return bytes(whole)


def associated_files(source) -> dict[str, int]:
    """Sizes of the files appended to a .tflite file (its path, bytes or file object), by name."""
    with _archive(source) as archive:
        return {} if archive is None else {entry.filename: entry.file_size for entry in archive.infolist()}


def associated_file(source, name: str) -> bytes | None:
    """One of the files appended to a .tflite file (its path, bytes or file object), or None.

    Raises:
        ValueError: if it is damaged, or inflates to more than `MOST_FILE_BYTES`.
    """
    with _archive(source) as archive:
        if archive is None or name not in archive.namelist():
            return None
        size = archive.getinfo(name).file_size
        if size > MOST_FILE_BYTES:
            raise ValueError(f"its file {name} inflates to {size:,} bytes; more than {MOST_FILE_BYTES:,} are not read")
        try:
            return archive.read(name)
        except _ZIP_ERRORS as error:
            raise ValueError(f"its file {name} is damaged: {error}") from error


@contextlib.contextmanager
def _archive(source):
    """The zip behind a file, or None."""
    with contextlib.ExitStack() as stack:
        source = io.BytesIO(source) if isinstance(source, bytes) else source
        archive = None
        if zipfile.is_zipfile(source):
            try:
                archive = stack.enter_context(zipfile.ZipFile(source))
            except _ZIP_ERRORS as error:
                raise ValueError(f"the list of its associated files is damaged: {error}") from error
        yield archive


def input_limits(config, inputs) -> dict[str, int]:
    """The first integer that is too large, for those inputs that a model of ours reads from a table or as a switch."""
    limits = {"token_ids": config.vocabulary_size, "padding_mask": 2, "segment_ids": config.token_types}
    limits |= {"encoder_token_ids": config.read_vocabulary_size, "encoder_padding_mask": 2}
    return {name: limits[name] for name in inputs if name in limits}


def own_entry(**values) -> bytes:
    """Our metadata entry as JSON bytes, with the place of the digest first."""
    return json.dumps({CHECKSUM: checksum.PLACEHOLDER, **values}, ensure_ascii=False).encode("utf-8")
