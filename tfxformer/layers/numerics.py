"""How a graph writes what several formulas can express: same layers, same variables, another graph."""

from __future__ import annotations

from dataclasses import dataclass

from tfxformer.layers.equalization import Equalization


@dataclass(frozen=True)
class Numerics:
    """The writing of a graph, chosen where it is built; the weights and (up to rounding) the result stay.

    Attributes:
        mask_value: float, added to the attention score of a padded position. Static int8 shares one scale
            over scores and mask, so export chooses a small one; training wants one that always wins.
        layer_norm: "fused" is Keras' own; "product" writes the variance as a product of two differences,
            which LiteRT does not fold into SQUARED_DIFFERENCE (an op without int8 and int16 kernels).
        embedding: "take" is Keras' own lookup, "gather" the raw one without the wrap of negative ids.
        equalization: Equalization or None, how one model's products keep their outliers out of int8's way.
    """

    mask_value: float = -1e9
    layer_norm: str = "fused"
    embedding: str = "take"
    equalization: Equalization | None = None

    def __post_init__(self):
        for name, known in (("layer_norm", ("fused", "product")), ("embedding", ("take", "gather"))):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}.")


DEFAULT = Numerics()
