"""Pages and tables of results, written from measured JSON."""
