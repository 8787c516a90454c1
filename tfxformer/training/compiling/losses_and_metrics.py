"""Losses and metrics of Keras, compiled so that they mean on a task's logits what they mean on probabilities."""

from __future__ import annotations

import difflib
import inspect

import keras
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask

from tfxformer.training.compiling.outputs import (
    CROSS_ENTROPIES,
    KINDS,
    TAKE_CHOICES,
    TAKE_MARGINS,
    TAKE_THE_ORDER,
    Output,
    are_ids,
    arranged,
    as_ids,
    broadcast_weights,
    compared,
    keras_name,
    to_predictions,
    wants_logits,
)

# Names for which Keras chooses by the shapes; here the kind of the logits decides.
_BY_KIND = {
    "accuracy": {"softmax": "SparseCategoricalAccuracy", "sigmoid": "BinaryAccuracy"},
    "crossentropy": {"softmax": "SparseCategoricalCrossentropy", "sigmoid": "BinaryCrossentropy"},
}
_BY_KIND |= {"acc": _BY_KIND["accuracy"], "ce": _BY_KIND["crossentropy"]}
_ALL_CROSS_ENTROPIES = sum(CROSS_ENTROPIES.values(), ())


def compile_arguments(outputs, loss=None, metrics=None, weighted_metrics=None) -> dict:
    """Arguments of Keras' compile that mean on logits what they mean on probabilities.

    Where some rows have no label, metrics count the others, each as one; weighted metrics by their weights.

    Args:
        outputs: `Output`, or a dict of them by name.
        loss, metrics, weighted_metrics: as Keras takes them.

    Raises:
        ValueError: for names that Keras does not know, and outputs that the model does not have.
    """
    none = metrics is None and weighted_metrics is None
    if isinstance(outputs, Output):
        plain, counted = _metrics_of({"": outputs}, {"": metrics}, {"": weighted_metrics})
        loss = _map(loss, lambda one: loss_on(outputs, one))
        return _packed(loss, None if none else plain.get("", []), None if none else counted.get("", []))
    if loss is not None and not _is_by_name(loss):
        loss = dict.fromkeys(outputs, loss)
    metrics, weighted_metrics = metrics or {}, weighted_metrics or {}
    for argument, given in (("loss", loss or {}), ("metrics", metrics), ("weighted_metrics", weighted_metrics)):
        if not _is_by_name(given) or set(given) - set(outputs):
            raise ValueError(
                f"{argument}={given!r}: this model has the outputs {', '.join(outputs)}; give a dict by their names."
            )
    if loss is not None:
        loss = {name: _map(one, lambda part, name=name: loss_on(outputs[name], part)) for name, one in loss.items()}
    plain, counted = _metrics_of(outputs, metrics, weighted_metrics)
    return _packed(loss, None if none else plain, None if none else counted)


def _packed(loss, metrics, weighted_metrics) -> dict:
    return {"loss": loss, "metrics": metrics, "weighted_metrics": weighted_metrics}


def _metrics_of(outputs: dict, metrics: dict, weighted: dict) -> tuple[dict, dict]:
    """Metrics by output, and weighted metrics: those that count labelled rows need the weights to know them."""
    plain, counted = {}, {}
    for name, output in outputs.items():
        own = [metric_on(output, one, counts=output.partial) for one in _listed(metrics.get(name))]
        others = [metric_on(output, one) for one in _listed(weighted.get(name))]
        if output.partial:
            own, others = [], [*own, *others]
        for found, part in ((plain, own), (counted, others)):
            if part:
                found[name] = part
    return plain, counted


def _is_by_name(given) -> bool:
    return isinstance(given, dict) and "class_name" not in given


def _map(given, function):
    """`function` of each loss or metric of a list or dict; an object that Keras has written down as a dict is one."""
    if _is_by_name(given):
        return {name: _map(one, function) for name, one in given.items()}
    if isinstance(given, (list, tuple)):
        return [_map(one, function) for one in given]
    return None if given is None else function(given)


def _listed(given) -> list:
    """Metrics of one output, however nested, as a list."""
    found = []
    _map(given, found.append)
    return found


def _resolved(module, identifier, output: Output):
    """A loss or metric, or a function, by what the user has written; those of Keras' names are made anew."""
    chosen = _BY_KIND.get(identifier.lower()) if isinstance(identifier, str) else None
    if chosen and all(hasattr(module, name) for name in chosen.values()):  # no loss is an accuracy
        by_kind, kind = chosen, KINDS[output.kind]
        if kind not in by_kind:
            raise ValueError(f"{identifier!r} compares labels, and this model gives scores: use 'mse' or 'mae'.")
        return getattr(module, by_kind[kind])(name=identifier)
    if not isinstance(identifier, (str, dict)):
        if not callable(identifier) and not isinstance(identifier, keras.metrics.Metric):
            raise TypeError(
                f"{module.__name__} has no {identifier!r}: wanted a name, an object or a function of (y_true, y_pred)."
            )
        return identifier() if inspect.isclass(identifier) else identifier
    try:
        return module.get(identifier)
    except ValueError as error:
        if not isinstance(identifier, str):
            raise
        known = {name.lower(): name for name in dir(module) if inspect.isclass(getattr(module, name))}
        near = difflib.get_close_matches(identifier.lower(), known, cutoff=0.4)
        said = f"; near: {', '.join(known[name] for name in near)}" if near else ""
        raise ValueError(f"{module.__name__} has no {identifier!r}{said}.") from error


# ---- losses ----------------------------------------------------------------------------------------------------


def loss_on(output: Output, given):
    """A loss that takes the logits of `output`; `given` itself where it is none of Keras'."""
    if isinstance(given, LogitsLoss):
        return given
    loss = _resolved(keras.losses, given, output)
    name = keras_name(loss)
    if name is None and wants_logits(loss) is not False:
        return loss
    if name is not None and not isinstance(loss, keras.losses.Loss):  # a function, or a name of one
        made = getattr(keras.losses, name, None)
        loss = made(reduction=output.reduction, name=loss.__name__) if made is not None else loss
    elif isinstance(given, str):
        loss.reduction = output.reduction
    return LogitsLoss(loss, output)


@keras.saving.register_keras_serializable("tfxformer")
class LogitsLoss(keras.losses.Loss):
    """A loss on logits that hands another what it takes: see `compile_arguments`.

    Args:
        loss: `keras.losses.Loss`, or a function of Keras.
        output: `Output`, or a list of its fields.
    """

    def __init__(self, loss, output, name=None, reduction=None, dtype=None):
        output = Output(*output)
        super().__init__(
            name=name or getattr(loss, "name", None) or loss.__name__,
            reduction=reduction or getattr(loss, "reduction", output.reduction),
            dtype=dtype or getattr(loss, "dtype", None),
        )
        self.loss, self.output = loss, output
        self._class = keras_name(loss)
        self._of_logits = None  # the same loss on logits, which loses no precision
        _check_kind(self._class, output, loss)
        if self._class in _ALL_CROSS_ENTROPIES and not loss.from_logits and type(loss).__name__ == self._class:
            self._of_logits = type(loss).from_config({**loss.get_config(), "from_logits": True})

    def call(self, y_true, y_pred):
        y_true, logits, labelled = arranged(self.output, y_true, y_pred)
        terms = self._terms(y_true, logits)
        if self.output.kind == "spans":
            terms = ops.mean(terms, axis=-1)
        if labelled is not None and len(terms.shape) == len(labelled.shape):
            mask = get_keras_mask(terms)
            set_keras_mask(terms, labelled if mask is None else ops.logical_and(mask, labelled))
        return terms

    def _terms(self, y_true, logits):
        if _is_of_rows(self._class, self.output, y_true, logits):
            return ops.categorical_crossentropy(y_true, logits, from_logits=True)
        kind = KINDS[self.output.kind]
        if self._class is not None:
            y_true, logits, kind = compared(self.loss, self._class, self.output, y_true, logits)
        loss, predictions = self.loss, logits
        if self._of_logits is not None and self._class in CROSS_ENTROPIES.get(kind, ()):
            loss = self._of_logits
        elif self._class not in TAKE_MARGINS and not wants_logits(loss):
            predictions = to_predictions(kind, logits)
        return loss.call(y_true, predictions) if isinstance(loss, keras.losses.Loss) else loss(y_true, predictions)

    def get_config(self):
        described = {"loss": keras.saving.serialize_keras_object(self.loss), "output": list(self.output)}
        return {**super().get_config(), **described}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.losses.deserialize(config["loss"])})


def _is_of_rows(name, output: Output, y_true, logits) -> bool:
    """Whether soft labels come where ids were expected: the same formula serves both."""
    is_sparse = name == "SparseCategoricalCrossentropy" and KINDS[output.kind] == "softmax"
    return is_sparse and not are_ids(y_true, logits)


def _check_kind(name, output: Output, thing) -> None:
    if output.kind == "scores" and name in _ALL_CROSS_ENTROPIES and not wants_logits(thing):
        raise ValueError(
            f"{name} compares labels with probabilities, and this model gives scores: pass {name}(from_logits=True) to "
            "take them for logits, or use a loss of scores such as 'mse'."
        )


def is_token_cross_entropy(loss) -> bool:
    """Whether a compiled loss is the mean cross-entropy of tokens by their weights."""
    loss = loss.loss if isinstance(loss, LogitsLoss) else loss
    return keras_name(loss) == "SparseCategoricalCrossentropy"


# ---- metrics ---------------------------------------------------------------------------------------------------


def metric_on(output: Output, given, counts: bool = False):
    """A metric that takes the logits of `output`; `given` itself where it is none of Keras' and nothing is counted.

    Args:
        counts: whether rows with a weight count as one each, and those without not at all.
    """
    if isinstance(given, LogitsMetric):
        return given
    metric = _resolved(keras.metrics, given, output)
    if keras_name(metric) is None and wants_logits(metric) is not False and not counts:
        return given
    if not isinstance(metric, keras.metrics.Metric):
        metric = keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", type(metric).__name__))
    if isinstance(given, str):
        metric.name = given
    return LogitsMetric(metric, output, counts)


@keras.saving.register_keras_serializable("tfxformer")
class LogitsMetric(keras.metrics.Metric):
    """A metric on logits that hands another what it takes: see `compile_arguments`.

    Args:
        metric: `keras.metrics.Metric`.
        output: `Output`, or a list of its fields.
        counts: see `metric_on`.
    """

    def __init__(self, metric, output, counts=False, name=None, dtype=None):
        super().__init__(name=name or metric.name, dtype=dtype or metric.dtype)
        self.metric = metric
        self.counts = counts
        self._output = tuple(output)  # Keras would make a tracked list of it
        self._class = keras_name(metric)
        _check_kind(self._class, Output(*output), metric)
        if hasattr(metric, "_direction"):  # by it ModelCheckpoint and EarlyStopping know what is better
            self._direction = metric._direction

    def update_state(self, y_true, y_pred, sample_weight=None):
        output = Output(*self._output)
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        weights = None if sample_weight is None else ops.cast(sample_weight, "float32")
        if weights is not None and self.counts:
            weights = ops.cast(ops.not_equal(weights, 0.0), "float32")
        if self._class is None and wants_logits(self.metric) is None:
            return self._update_own(y_true, y_pred, weights)
        y_true, logits, labelled = arranged(output, y_true, y_pred)
        if labelled is not None:
            labelled = ops.cast(labelled, "float32")
            weights = labelled if weights is None else labelled * broadcast_weights(weights, labelled)
        if self._class is None:
            predictions = logits if wants_logits(self.metric) else to_predictions(KINDS[output.kind], logits)
            return self.metric.update_state(y_true, predictions, sample_weight=weights)
        if _is_of_rows(self._class, output, y_true, logits):
            terms = ops.categorical_crossentropy(y_true, logits, from_logits=True)
            return keras.metrics.Mean.update_state(self.metric, terms, sample_weight=weights)
        y_true, logits, kind = compared(self.metric, self._class, output, y_true, logits)
        return self.metric.update_state(*self._rows(y_true, self._predictions(kind, logits), kind, weights))

    def _predictions(self, kind: str, logits):
        if self._class in (*TAKE_THE_ORDER, *TAKE_MARGINS):
            return logits
        if not wants_logits(self.metric):
            return to_predictions(kind, logits)
        if self._class != "AUC" or kind != "softmax":
            return logits
        chances = ops.clip(to_predictions(kind, logits), 1e-7, 1.0 - 1e-7)
        return ops.log(chances) - ops.log1p(-chances)  # AUC(from_logits=True) takes the sigmoid of each

    def _rows(self, y_true, predictions, kind: str, weights):
        """(labels, predictions [rows, C], weights [rows]): tokens become rows."""
        if self._class in TAKE_CHOICES and getattr(self.metric, "sparse_y_pred", True):
            y_true = as_ids(y_true, predictions) if kind == "softmax" else y_true
            predictions = ops.argmax(predictions, -1) if kind == "softmax" else ops.cast(predictions > 0.5, "int32")
            weights = None if weights is None else ops.reshape(broadcast_weights(weights, predictions), (-1,))
            return ops.reshape(y_true, (-1,)), ops.reshape(predictions, (-1,)), weights
        if len(predictions.shape) < 2:
            return y_true, predictions, weights
        if weights is not None:
            weights = ops.reshape(broadcast_weights(weights, predictions[..., 0]), (-1,))
        if len(predictions.shape) > 2:
            y_shape = (-1, y_true.shape[-1]) if len(y_true.shape) == len(predictions.shape) else (-1,)
            y_true = ops.reshape(y_true, y_shape)
            predictions = ops.reshape(predictions, (-1, ops.shape(predictions)[-1]))
        return y_true, predictions, weights

    def _update_own(self, y_true, y_pred, weights):
        """A metric of the user's gets what there is, and weights where it can have as many values."""
        if type(self.metric) is keras.metrics.MeanMetricWrapper and weights is not None:
            values = self.metric._fn(y_true, y_pred, **self.metric._fn_kwargs)
            weights = weights if len(values.shape) == len(weights.shape) else None
        return self.metric.update_state(y_true, y_pred, sample_weight=weights)

    def result(self):
        return self.metric.result()

    def reset_state(self):
        self.metric.reset_state()

    def get_config(self):
        described = {"metric": keras.saving.serialize_keras_object(self.metric), "output": list(self._output)}
        return {**super().get_config(), **described, "counts": self.counts}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "metric": keras.metrics.deserialize(config["metric"])})
