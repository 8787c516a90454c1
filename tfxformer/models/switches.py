"""Which values of a config's switches each model computes: any other is refused when the model is made."""

from __future__ import annotations

# Path of a switch -> the values that the model computes. What is not listed it computes in all of its values.
ENCODER = {
    "encoder.causal": (True,),  # a decoder's switch: an encoder's tokens see all others
    "encoder.sliding_window": (None,),
    "encoder.windowed_layers": (None,),
    "encoder.norm_position": ("post", "pre"),
    "encoder.positions": ("learned",),
    "encoder.rotary": (None,),
    "encoder.position_offset": (0,),
    "embedding_projection_bias": (True,),
    "output_projection": (False,),
    "heads.tied": (True,),  # a masked-language head reads the token table in reverse
}
DECODER = {
    "decoder.position_mode": ("arange",),
    "decoder.layer_groups": (None,),
    "decoder.layers_per_group": (1,),
    "token_types": (0,),
    "heads.pooler": (False,),
    "heads.masked_lm_activation": (None,),
}


def check_switches(config, model: str) -> None:
    """Refuses a config that says what a model does not compute.

    Args:
        config: TransformerConfig.
        model: "Encoder" or "Decoder".

    Raises:
        ValueError: naming every such switch, its value, and those that the model computes.
    """
    stack, computed = {"Encoder": ("encoder", ENCODER), "Decoder": ("decoder", DECODER)}[model]
    if getattr(config, stack) is None:
        other = "Decoder" if stack == "encoder" else "Encoder"
        raise ValueError(
            f"This config has no {stack}, which the {model} is made of: make a {other}, or tfxformer.build."
        )
    refused = []
    for path, values in computed.items():
        part, _, name = path.rpartition(".")
        value = getattr(getattr(config, part) if part else config, name)
        if value not in values:
            refused.append(f"{path.replace('.', '__')}={value!r} (it computes {' or '.join(map(repr, values))})")
    if refused:
        raise ValueError(f"The {model} does not compute {', '.join(refused)}: built without, it would answer wrongly.")
