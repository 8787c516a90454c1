"""Optimizers, which variables they decay, and learning rate schedules."""
