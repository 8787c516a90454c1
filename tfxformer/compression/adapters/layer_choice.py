"""What the kinds of adapters share: which layers of a model they choose, and which are trained whole beside them."""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.compression.weights.matrices import Kernel, all_kernels
from tfxformer.models.heads import ClassificationHead

Choice = str | tuple[str, ...] | Callable[[keras.layers.Layer], bool]


class AdapterKind(KnownKeywords):
    """A value that says what an adapter is: LoRA, AdaLoRA, IA3, Bottleneck, BitFit.

    It has a field `also_train`: layers that are trained whole, and saved with the adapter: names ("query",
    "feed_forward/output": a layer's name or the end of its path) or `also_train(layer) -> bool`; None for the
    classification heads of tfxformer's tasks, () for none.
    """

    also_train: Choice | None

    def kernels(self, model: keras.Model) -> list[Kernel]:
        """The kernels of a model that get something beside them.

        Raises:
            ValueError: where there are none.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which kernels it wants.")

    def arguments(self, kernel: Kernel) -> dict:
        """What `models.adapters.make_adapter` makes its part beside a kernel of, but for its name."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it puts beside a kernel.")

    def whole_layers(self, model: keras.Model) -> list[keras.layers.Layer]:
        """The layers of a model that are trained whole, with those inside them.

        Raises:
            ValueError: where `also_train` matches none.
        """
        layers = list({id(layer): layer for layer in model._flatten_layers(include_self=False)}.values())
        if self.also_train is None:
            chosen = [layer for layer in layers if isinstance(layer, ClassificationHead)]
        else:
            chosen = [layer for layer in layers if matches(self.also_train, layer)]
            if not chosen and self.also_train != ():
                raise ValueError(
                    f"{type(self).__name__}: also_train={shown(self.also_train)} matches no layer of {model.name!r}."
                )
        return list({id(inner): inner for layer in chosen for inner in layer._flatten_layers()}.values())

    def whole_variables(self, model: keras.Model) -> list[keras.Variable]:
        """The variables of a model without adapter that are trained as they are."""
        return [variable for layer in self.whole_layers(model) for variable in layer._trainable_variables]

    # ---- for the subclasses -----------------------------------------------------------------------------------

    def _known(self, model: keras.Model) -> list[Kernel]:
        """The kernels of the Dense and EinsumDense layers that are not trained whole."""
        whole = {id(layer) for layer in self.whole_layers(model)}
        dense = (keras.layers.Dense, keras.layers.EinsumDense)
        return [one for one in all_kernels(model) if isinstance(one.layer, dense) and id(one.layer) not in whole]

    def _matching(self, model: keras.Model, field: str) -> list[Kernel]:
        """Those that the names or the function of a field want.

        Raises:
            ValueError: where there are none.
        """
        known, choice = self._known(model), getattr(self, field)
        chosen = [one for one in known if matches(choice, one.layer)]
        if not chosen:
            names = sorted({one.layer.name for one in known})
            raise ValueError(
                f"{type(self).__name__}: {field}={shown(choice)} match no layer of {model.name!r}. Its Dense and "
                f"EinsumDense layers are named {', '.join(names[:12]) or '(there are none)'}"
                f"{', ...' if len(names) > 12 else ''}."
            )
        return chosen

    def _check_choices(self, *fields: str) -> None:
        for field in fields:
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _checked(f"{type(self).__name__}: {field}", getattr(self, field)))


def matches(choice: Choice, layer) -> bool:
    """Whether names or a function want a layer."""
    if callable(choice):
        return bool(choice(layer))
    return any(layer.name == name or f"/{layer.path}".endswith(f"/{name}") for name in choice)


def shown(choice: Choice) -> str:
    """A choice for an error."""
    return getattr(choice, "__name__", repr(choice)) if callable(choice) else repr(choice)


def _checked(field: str, choice) -> Choice:
    if callable(choice):
        return choice
    names = (choice,) if isinstance(choice, str) else choice
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"{field} are names of layers, or a function layer -> bool; got {choice!r}.")
    return tuple(names)
