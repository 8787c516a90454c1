"""All that a training is at one moment, as named arrays and a JSON manifest, and back."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer import __version__
from tfxformer.arguments import notices
from tfxformer.backend import on_jax, strategy_of
from tfxformer.training.devices.workers import local_rows, of_all_replicas, optimizer_config, plain_path
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.optimizers.schedules import Scaled
from tfxformer.training.resume.state import accumulator_of, state_variables, value_of
from tfxformer.training.step.accumulation import copies

FORMAT = 1
_GROUPS = ("model", "optimizer", "metrics")
_BATCHES, _SUMS = "accumulation/batches", "accumulation/sums/{}"
# What Keras' own callbacks know from one epoch to the next.
_KERAS_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


class ResumeError(ValueError):
    """A checkpoint that this training cannot go on from."""


def variables_by_name(model) -> dict[str, keras.Variable]:
    """ "group/index/path" -> each variable that training changes; the groups are model, optimizer and metrics."""
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    optimizer = {id(variable) for variable in model.optimizer.variables}
    named, counts = {}, {}
    for variable in state_variables(model):
        group = "metrics" if id(variable) in metrics else "optimizer" if id(variable) in optimizer else "model"
        index = counts[group] = counts.get(group, -1) + 1
        named[f"{group}/{index:05d}/{variable.path}"] = variable
    return named


def _place(name: str) -> str:
    """ "group/index" of a name; paths have other numbers where a process has made models before."""
    return "/".join(name.split("/", 2)[:2])


# ---- from the model -------------------------------------------------------------------------------------------


def collect_arrays(model, callbacks) -> dict[str, np.ndarray]:
    """Copies of all values; every worker of a cluster calls it at the same time."""
    if on_jax():
        model.jax_state_sync()  # a step there writes to no variable
    arrays = {name: value_of(variable) for name, variable in variables_by_name(model).items()}
    accumulator = accumulator_of(model)
    if accumulator is not None:
        arrays[_BATCHES] = value_of(accumulator.batches)
        if accumulator.pending:  # else all sums are zero
            arrays |= _collect_sums(accumulator, strategy_of(model))
    for key, callback in _with_state(callbacks):
        for name, value in _state_of(callback).items():
            if _is_arrays(value):
                arrays |= {f"callbacks/{key}/{name}/{i:05d}": np.asarray(array) for i, array in enumerate(value)}
    return arrays


def _collect_sums(accumulator, strategy) -> dict[str, np.ndarray]:
    """For each dtype [replicas, elements], the sums of that dtype one after another: one exchange between workers."""
    taken = {}
    for dtype, variables in _by_dtype(accumulator.sums).items():
        rows = zip(*map(copies, variables), strict=True)  # for each replica, its copies
        local = [np.concatenate([value_of(one).reshape(-1) for one in row]) for row in rows]
        taken[_SUMS.format(dtype)] = of_all_replicas(strategy, local)
    return taken


def _by_dtype(variables) -> dict:
    found = {}
    for variable in variables:
        found.setdefault(variable.dtype.name, []).append(variable)
    return found


def collect_manifest(model, source, callbacks, history) -> dict:
    """What is no array."""
    rate = updating_optimizer(model.optimizer)._learning_rate
    return {
        "format": FORMAT,
        "tfxformer": __version__,
        "optimizer": optimizer_config(model),
        "accumulation": getattr(model, "gradient_accumulation_steps", 1),
        "replicas": strategy_of(model).num_replicas_in_sync,
        "data": source.signature,
        "rate_factor": rate.factor if isinstance(rate, Scaled) else None,
        "history": {"epoch": list(history.epoch), "history": history.history},
        "callbacks": {
            key: {name: None if _is_arrays(value) else value for name, value in _state_of(callback).items()}
            for key, callback in _with_state(callbacks)
        },
    }


def _is_arrays(value) -> bool:
    return isinstance(value, (list, tuple)) and bool(len(value)) and all(isinstance(one, np.ndarray) for one in value)


def _attributes(callback) -> tuple[str, ...]:
    return next((names for kind, names in _KERAS_STATES.items() if isinstance(callback, kind)), ())


def _state_of(callback) -> dict:
    if hasattr(callback, "resume_state"):
        return callback.resume_state()
    return {name: getattr(callback, name, None) for name in _attributes(callback)}


def _with_state(callbacks):
    """(key, callback) of those that know something from one epoch to the next."""
    counts = {}
    for callback in callbacks:
        if hasattr(callback, "resume_state") or _attributes(callback):
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, -1) + 1
            yield f"{kind}.{counts[kind]}", callback


# ---- and back -------------------------------------------------------------------------------------------------


def check_data(path, manifest: dict, source) -> None:
    """Refuses a checkpoint of other data.

    Raises:
        ResumeError: saying what differs.
    """
    if manifest.get("format") != FORMAT:
        raise ResumeError(f"{path} has format {manifest.get('format')!r}; tfxformer {__version__} reads {FORMAT}.")
    _refuse(path, "other data", _differences(manifest["data"], source.signature))


def check_model(path, manifest: dict, arrays: dict, model) -> None:
    """Refuses a checkpoint of another model or optimizer.

    Raises:
        ResumeError: saying what differs.
    """
    found = _differences(manifest["optimizer"] or {}, optimizer_config(model) or {}, "optimizer ")
    steps = getattr(model, "gradient_accumulation_steps", 1)
    found += _differences({"accumulation": manifest["accumulation"]}, {"accumulation": steps})
    _refuse(path, "another model or optimizer", found + _other_variables(arrays, model, _GROUPS))


def _other_variables(arrays: dict, model, groups) -> list[str]:
    """The variables that differ in name, shape or dtype, in words."""
    here, found = variables_by_name(model), []
    for group in groups:
        stored, wanted = ([name for name in names if name.startswith(f"{group}/")] for names in (arrays, here))
        if len(stored) != len(wanted):
            found.append(f"{group} has {len(stored)} variables in the checkpoint, {len(wanted)} here")
        for old, new in zip(stored, wanted, strict=False):
            before = (plain_path(old.split("/", 2)[2]), arrays[old].shape, arrays[old].dtype.name)
            variable = here[new]
            now = (plain_path(variable.path), tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
            if before != now:
                found.append("{} {} {} in the checkpoint, {} {} {} here".format(*before, *now))
    return found


def _refuse(path, what: str, differences: list[str]) -> None:
    if differences:
        more = f"; and {len(differences) - 6} more" if len(differences) > 6 else ""
        raise ResumeError(
            f"{path} is the checkpoint of {what}: {'; '.join(differences[:6])}{more}. Train as before, or give "
            "another folder to begin anew."
        )


def _differences(before: dict, now: dict, prefix="") -> list[str]:
    """What differs between two JSON dicts, in words."""
    found = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name} ")
        elif old != new:
            found.append(f"{prefix}{name} {old!s:.60} in the checkpoint, {new!s:.60} here")
    return found


def restore_arrays(arrays: dict, manifest: dict, model) -> None:
    """Gives every variable its value."""
    by_place = {_place(name): array for name, array in arrays.items()}
    for name, variable in variables_by_name(model).items():
        variable.assign(by_place[_place(name)])
    accumulator = accumulator_of(model)
    if accumulator is not None and _BATCHES in arrays:
        accumulator.reset()
        accumulator.batches.assign(arrays[_BATCHES])
        if accumulator.pending:
            _restore_sums(arrays, accumulator, strategy_of(model))


def restore_weights(path, arrays: dict, model) -> None:
    """Gives a model its weights and random states alone.

    Raises:
        ResumeError: for the checkpoint of another model.
    """
    _refuse(path, "another model", _other_variables(arrays, model, ("model",)))
    by_place = {_place(name): array for name, array in arrays.items()}
    for name, variable in variables_by_name(model).items():
        if name.startswith("model/"):
            variable.assign(by_place[_place(name)])


def _restore_sums(arrays, accumulator, strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    for dtype, variables in _by_dtype(accumulator.sums).items():
        rows = arrays[_SUMS.format(dtype)]
        if len(rows) != replicas:  # the sum over them is what counts
            rows = np.concatenate([rows.sum(0, keepdims=True), np.zeros((replicas - 1, rows.shape[1]), rows.dtype)])
        for row, local in zip(local_rows(strategy, rows), zip(*map(copies, variables), strict=True), strict=True):
            parts = np.split(row, np.cumsum([np.prod(one.shape, dtype=int) for one in local])[:-1])
            for one, part in zip(local, parts, strict=True):
                one.assign(part.reshape(one.shape))


def restore_rate_factor(manifest: dict, model) -> None:
    """Puts the factor that `Recover` had found onto the schedule."""
    optimizer, factor = updating_optimizer(model.optimizer), manifest["rate_factor"]
    if factor is not None:
        rate = optimizer._learning_rate
        optimizer.learning_rate = Scaled(rate.schedule if isinstance(rate, Scaled) else rate, factor)
        model.make_train_function(force=True)


def restore_callbacks(arrays: dict, manifest: dict, callbacks) -> None:
    """Gives the callbacks of the same class and order what they knew."""
    for key, callback in _with_state(callbacks):
        state = dict(manifest["callbacks"].get(key) or {})
        for name in state:
            of_name = [array for path, array in arrays.items() if path.startswith(f"callbacks/{key}/{name}/")]
            state[name] = [np.array(array) for array in of_name] or state[name]
        if not state:
            continue
        if hasattr(callback, "resume_from"):
            callback.resume_from(state)
        else:
            for name, value in state.items():
                setattr(callback, name, value)


def warn_of_replicas(manifest: dict, model) -> None:
    """Says that a training goes on with another number of replicas."""
    here = strategy_of(model).num_replicas_in_sync
    if manifest["replicas"] != here:
        notices.warn(
            f"The training goes on with {here} replica(s); it had {manifest['replicas']}. Other replicas draw other "
            "dropout and sum in another order: the result is not bit for bit that of the uninterrupted run."
        )
