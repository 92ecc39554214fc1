"""Losses, batches and the loop that trains students and teachers."""
