"""Mixture of SuperNets: trainer, assignment of configurations to SuperNets, and samplers."""
