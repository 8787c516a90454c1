"""Data files in the forms that people have them, as what tasks fit on."""
