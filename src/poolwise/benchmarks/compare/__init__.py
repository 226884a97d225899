"""Comparison of all methods under one protocol, evaluated on a table of stand-alone accuracies."""
