"""The stages of a run as one graph, and the code that runs them."""
