"""What a model attends to and what contributes, as arrays and as pictures."""
