"""The Keras model below ours: what it saves appears whole or not at all, and what it loads is checked."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import keras
from keras.src.backend.common import global_state

from tfxformer.arguments.keywords import checked
from tfxformer.backend import is_whole_here, processes
from tfxformer.files import replacing, replacing_folder

_KERAS_FOLDER = ("config.json", "metadata.json", "model.weights.*", "assets")  # what save(zipped=False) writes
_LEGACY = (
    "a model cannot be read back from the legacy HDF5 format. Save it as a .keras file, or its weights alone by "
    "save_weights('NAME.weights.h5')."
)
_HDF5_OVERHEAD = 8192  # bytes for each variable's groups and names, more than they take


class SavedModel(keras.Model):
    """A `keras.Model` whose files an interrupt or a full disk never leaves half-written, nor damage changes unseen.

    What lies elsewhere than on this machine's disks ("hf://...", "gs://...") is left to Keras.
    """

    @checked
    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Keras' `save` in one step: an older file or folder stays until the new one is complete.

        Args:
            filepath: a .keras file, or with `zipped=False` a folder.
            overwrite: False refuses a path that is there.

        Raises:
            ValueError: for the legacy .h5 files, which models of ours cannot be read from.
            FileExistsError: for a path that is there, with `overwrite=False`.
            OSError: where it cannot be written, naming it and the reason.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(f"{filepath}: {_LEGACY}")
        if not _is_local(filepath) or (zipped is not False and not str(filepath).endswith(".keras")):  # Keras says why
            super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
            return
        _check_overwrite(filepath, overwrite)
        if not _writes(self):
            return
        if zipped is False:
            with replacing_folder(filepath, _KERAS_FOLDER) as new, _undistributed():
                self._check_space(new)
                try:
                    super().save(new, zipped=False, **kwargs)
                except UnboundLocalError as error:  # of Keras' cleaning, which hides what the disk said
                    raise error.__context__ or error from None
            return
        with replacing(filepath) as part, _undistributed():
            super().save(part, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Keras' `save_weights` in one step; see `save`.

        Of shards, the .json that lists them is removed first and written last: half of them cannot be loaded.
        """
        if not _is_local(filepath) or not str(filepath).endswith((".weights.h5", ".weights.json")):  # Keras says why
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
            return
        _check_overwrite(filepath, overwrite)
        if not _writes(self):
            return
        if max_shard_size is not None:
            path = Path(filepath).expanduser()
            path.with_suffix(".json").unlink(missing_ok=True)
            with _undistributed():
                super().save_weights(path, max_shard_size=max_shard_size)
            return
        with replacing(filepath) as part, _undistributed():
            self._check_space(part.parent)
            super().save_weights(part)

    def load_weights(self, filepath, skip_mismatch=False, objects_to_skip=None):
        """Keras' `load_weights`, `~` expanded as `save_weights` does."""
        path = Path(filepath).expanduser() if _is_local(filepath) else filepath
        super().load_weights(path, skip_mismatch=skip_mismatch, objects_to_skip=objects_to_skip)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, opset_version=None):
        """Keras' `export`, but for LiteRT files: they would be unverified, without tokenizer and labels.

        Raises:
            ValueError: for those, naming `export.export_litert`.
        """
        if format == "litert" or str(filepath).endswith(".tflite"):
            raise ValueError(
                f"{filepath}: write LiteRT files by tfxformer.export.export_litert(model, path), which verifies them; "
                "Keras' own export does not."
            )
        of_onnx = {} if opset_version is None else {"opset_version": opset_version}
        super().export(filepath, format=format, verbose=verbose, input_signature=input_signature, **of_onnx)

    def _check_space(self, folder: Path) -> None:
        """Says that a disk is full before HDF5 meets it: the process would not survive that (HDF5 1.14)."""
        optimizer = getattr(self, "optimizer", None)
        variables = [*self.variables, *(optimizer.variables if optimizer is not None else ())]
        needed = sum(math.prod(v.shape) * _item_bytes(v.dtype) for v in variables)
        free = shutil.disk_usage(folder).free
        if free < needed * 1.02 + _HDF5_OVERHEAD * len(variables):
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes are needed, {free:,} are left)")

    def load_own_variables(self, store):
        """The first that Keras asks of a model when it loads: refuses a .keras file whose bytes have changed.

        Raises:
            ValueError: naming the file and its damaged member.
        """
        check_archive(store)
        super().load_own_variables(store)


@contextlib.contextmanager
def folder_of_first_process(folder, ours=()):
    """`files.replacing_folder` where several processes run one program: what the others write vanishes."""
    if processes()[0] == 0:
        with replacing_folder(folder, ours) as new:
            yield new
        return
    with tempfile.TemporaryDirectory() as other:
        yield Path(other) / Path(folder).name


@contextlib.contextmanager
def _undistributed():
    """While the first of several processes writes: Keras makes variables then, which the others would have to have."""
    found = keras.distribution.distribution() if processes()[1] > 1 else None
    if found is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(found)


def _writes(model) -> bool:
    """Whether this process writes a model's file: of several the first.

    Raises:
        ValueError: for a model whose weights are split over hosts.
    """
    split = next((one.path for one in model.variables if not is_whole_here(one)), None)
    if split is not None:
        raise ValueError(
            f"Keras' files hold what one host has, and {split} is split over several: write the model by "
            "save_pretrained, which fetches it tensor by tensor."
        )
    return processes()[0] == 0


def refuse_legacy() -> None:
    """Called where a model says its config: `keras.saving.save_model(model, "x.h5")` goes past `SavedModel.save`.

    Raises:
        ValueError: while Keras writes the legacy HDF5 format.
    """
    if global_state.get_global_attribute("use_legacy_config"):
        raise ValueError(f"The file was not written: {_LEGACY}")


def check_archive(store) -> None:
    """Refuses what Keras reads from an archive whose checksums do not agree.

    Keras reads the weights at once, whereupon zip compares their checksum. Where that fails, Keras goes on by reading
    the archive piece by piece, which compares nothing; `load_weights` always does. Both show by the store's archive.

    Args:
        store: of `load_own_variables`.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    archive = getattr(store, "archive", None)
    if not isinstance(archive, zipfile.ZipFile):
        return
    try:
        damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        damaged = str(error)
    if damaged is not None:
        store.h5_file.close()  # nothing further is read from it
        raise ValueError(f"{archive.filename or 'The .keras file'} is damaged ({damaged}): copy or save it again.")


def _is_local(filepath) -> bool:
    return isinstance(filepath, (str, os.PathLike)) and "://" not in str(filepath)


def _check_overwrite(filepath, overwrite: bool) -> None:
    if not overwrite and Path(filepath).expanduser().exists():
        raise FileExistsError(f"{filepath} exists already and overwrite=False: name another, or remove it.")


def _item_bytes(dtype: str) -> int:
    bits = "".join(filter(str.isdigit, dtype.partition("_")[0]))  # "float32", "float8_e4m3fn"; "bool" has none
    return max(1, int(bits or 8) // 8)
