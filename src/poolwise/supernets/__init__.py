"""The mixture of SuperNets: its trainer, the assignment of configurations and the samplers."""
