"""What travels inside a file: MediaPipe's model metadata, our own entry, and associated files.

The metadata table is written field by field with the flatbuffers builder, after metadata_schema.fbs of
https://github.com/google-ai-edge/mediapipe/tree/master/mediapipe/tasks/metadata; the numbers are its slots.
"""

from __future__ import annotations

import io
import json
import zipfile

import flatbuffers

from tfxformer.export import flatbuffer

MEDIAPIPE_ENTRY, OWN_ENTRY = "TFLITE_METADATA", "tfxformer"
MEDIAPIPE_INPUTS = {"token_ids": "ids", "padding_mask": "mask", "segment_ids": "segment_ids"}
LABELS, VOCABULARY, TOKENIZER = "labels.txt", "vocab.txt", "tokenizer.json"

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
        entries: metadata by name.
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
    return output.getvalue()


def associated_files(content) -> dict[str, bytes]:
    """The files appended to a .tflite file (its bytes or its path), by name."""
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    if not zipfile.is_zipfile(source):
        return {}
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def own_entry(**values) -> bytes:
    """Our metadata entry as JSON bytes."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8")
