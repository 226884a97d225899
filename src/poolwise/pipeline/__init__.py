"""The stages of a run as one graph, and carrying them out."""
