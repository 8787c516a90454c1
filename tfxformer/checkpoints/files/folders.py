"""Opens the weights of a checkpoint folder, whichever format they are in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.files.pickles import reader as pickles
from tfxformer.checkpoints.files.pickles.reader import PickleFile
from tfxformer.checkpoints.files.refusals import refuse_without_weights
from tfxformer.checkpoints.files.safetensors import SafetensorsFile, ShardedFiles


def open_folder(folder, *, scaled: bool = False) -> SafetensorsFile | PickleFile | ShardedFiles:
    """The tensors of a checkpoint folder; safetensors before pickles where it has both, as transformers does.

    Args:
        folder: of the checkpoint.
        scaled: whether floats of 8 bits are read, for which the caller has scales.

    Raises:
        CheckpointError: where the folder has neither, with what it has instead and the way out; for files that their
            reader refuses.
    """
    folder = Path(folder)
    for index, single, open_file in (
        (safetensors.INDEX_FILE, safetensors.SINGLE_FILE, partial(SafetensorsFile, scaled=scaled)),
        (pickles.INDEX_FILE, pickles.SINGLE_FILE, PickleFile),
    ):
        if (folder / index).is_file():
            return ShardedFiles(folder / index, open_file)
        if (folder / single).is_file():
            return open_file(folder / single)
    return refuse_without_weights(folder)
