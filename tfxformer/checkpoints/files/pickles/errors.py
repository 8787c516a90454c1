"""How the refusals of pickled checkpoints are worded."""

from __future__ import annotations

from typing import NoReturn

from tfxformer.checkpoints.files.errors import CheckpointError

WAY_OUT = (
    "Where you trust its maker, convert it once with torch and transformers: "
    "AutoModel.from_pretrained(folder).save_pretrained(new_folder) writes model.safetensors"
)
_LONGEST_SHOWN = 80


def refuse(path, what: str) -> NoReturn:
    """Refuses a file for what came in it.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(
        f"{path} is not read: {what}, where a state dict of plain tensors was wanted, written by torch.save. {WAY_OUT}."
    )


def shown(value) -> str:
    """A value of a foreign pickle in a few words: its repr could be endless, a tuple of tuples of itself."""
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int:
        return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    if type(value) is str:
        return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "...")
    return f"a {type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else f"a {type(value).__name__}"
