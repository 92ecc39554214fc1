"""What serves experiments: ablations and variants that no user of the program needs."""
