"""Data sets: rendered worlds and the published benchmarks, each as arrays with places and headings."""
