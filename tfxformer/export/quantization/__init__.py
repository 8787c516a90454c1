"""Numbers of fewer bits in a file: modes, calibration, what they cost."""
