"""LoRA and its kin as layers."""
