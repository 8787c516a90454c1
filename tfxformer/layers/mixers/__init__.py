"""What stands in the place of attention: short convolutions and the gated delta rule."""
