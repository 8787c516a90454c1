"""Finds a checkpoint: a local folder or GGUF file, or a hub id through `huggingface_hub` and its cache."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.gguf import is_gguf
from tfxformer.checkpoints.files.pickles import reader as pickles
from tfxformer.files import recover

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "*.model",  # SentencePiece under all its names
    "*.spm",
)
# What a checkpoint needs, each once. Weights are read under the names that transformers gives them: a maker's own
# (consolidated.safetensors) and variants (model.fp16.safetensors) would be a second copy.
_WANTED = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
    *_TOKENIZER_FILES,
    # sentence-transformers: the list of modules, and the folders of those that have files (1_Pooling, 2_Dense).
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "[0-9]*_*/*.json",
    "[0-9]*_*/model.safetensors",
    "0_*/*",
)
# The hub's patterns see no folders: "*.model" would match original/tokenizer.model too. Wanted are those of modules,
# which begin with a number, and additional_chat_templates.
# Weights of a checkpoint that has no safetensors, which are asked for once that is known.
_PICKLES = (
    pickles.SINGLE_FILE,
    pickles.INDEX_FILE,
    "pytorch_model-?????-of-?????.bin",
    f"[0-9]*_*/{pickles.SINGLE_FILE}",
)
_UNWANTED_PICKLES = ("*.bin",)
_UNWANTED = ("[!0-9a]*/*", "a[!d]*/*", "*.h5", "*.msgpack", "*.onnx")


def resolve(folder_or_hub_id, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded where it is a hub id and not yet in the cache; or its GGUF file.

    Args:
        folder_or_hub_id: a folder, a GGUF file or a hub id ("owner/name").
        revision: branch, tag or commit of a hub id; None for its main branch.

    Raises:
        CheckpointError: where there is neither, with what was tried; for the revision of a folder, which has none.
    """
    if not isinstance(folder_or_hub_id, (str, os.PathLike)) or not str(folder_or_hub_id).strip():
        raise CheckpointError(
            f"Give the folder of a checkpoint, a GGUF file or a hub id (owner/name), not {folder_or_hub_id!r}."
        )
    path = Path(folder_or_hub_id).expanduser()
    recover(path)
    if path.is_dir() or (path.is_file() and is_gguf(path)):
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} picks a version on the hub; {path} is on this machine.")
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; {_instead_of_file(path)}.")
    if is_gguf(path):
        raise CheckpointError(f"There is no GGUF file {str(path)!r}.")
    name = str(folder_or_hub_id).rstrip("/")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"There is no folder {name!r}, and it is not a hub id (owner/name) either.")
    try:
        folder = _download(name, revision, _WANTED, (*_UNWANTED, *_UNWANTED_PICKLES))
        return _download(name, revision, (*_WANTED, *_PICKLES), _UNWANTED) if _lacks_weights(folder) else folder
    except Exception as error:  # the hub client raises many kinds, from its own to the network's
        version = f" at revision {revision!r}" if revision is not None else ""
        raise CheckpointError(
            f"There is no folder {name!r} here, and the hub did not give a checkpoint of that name{version} "
            f"({type(error).__name__}: {error}). Offline, it must already be in the hub's cache."
        ) from error


def _download(name: str, revision: str | None, wanted: tuple[str, ...], unwanted: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(unwanted)))


def _lacks_weights(folder: Path) -> bool:
    """Whether a model of a folder, or one of its sentence-transformers modules, has no safetensors."""
    model = next(folder.glob("0_*"), folder)
    return any(not any(place.glob("model*.safetensors")) for place in (model, *folder.glob("[0-9]*_Dense")))


def _instead_of_file(path: Path) -> str:
    """What to give in place of a file."""
    if zipfile.is_zipfile(path):
        return "unpack the archive, and give the folder that holds config.json and model.safetensors"
    if path.suffix in (".safetensors", ".json") and (path.parent / "config.json").is_file():
        return f"give its folder, {path.parent}"
    return "give the folder that holds config.json and model.safetensors, or a GGUF file"
