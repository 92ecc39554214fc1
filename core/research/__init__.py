"""Experiments: ablations and variants. Using the program does not need them."""
