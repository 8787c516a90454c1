"""Which values of a config's switches each model computes: any other is refused when the model is made."""

from __future__ import annotations

# Path of a switch -> the values that the model computes. What is not listed it computes in all of its values.
ENCODER = {
    "heads.tied": (True,),  # a masked-language head reads the token table in reverse
    "heads.logit_scale": (1.0,),
    "heads.logit_soft_cap": (None,),
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
    if len(config.stacks) > 1:
        raise ValueError("This config has an encoder and a decoder: no model computes both together yet.")
    if stack not in config.stacks:
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
