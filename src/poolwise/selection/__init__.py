"""From a ranking to a decision: which configurations are picked."""
