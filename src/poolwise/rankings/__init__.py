"""Scores of all configurations, proxy trainings, and the order made from them."""
