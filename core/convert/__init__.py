"""The authors' checkpoints, read safely into model folders."""
