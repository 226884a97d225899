"""Every method on one protocol, judged against a table of the truth."""
