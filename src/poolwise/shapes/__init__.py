"""What the JSON files of poolwise must look like before any of it is used."""

from poolwise.shapes.check import check, each, number
from poolwise.shapes.files import EVENTS, RANKED, REQUEST, TABLE, TRIAL, check_file

__all__ = ["EVENTS", "RANKED", "REQUEST", "TABLE", "TRIAL", "check", "check_file", "each", "number"]
