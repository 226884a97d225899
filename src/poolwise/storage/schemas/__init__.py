"""Schemas of all JSON files of run folders, comparisons and tables.

A schema describes only the fields that are read, so other fields may differ between versions.
``validate`` converts a parsed value to an instance of its schema, or raises an error with a one-line message.
"""

from __future__ import annotations

from poolwise.storage.schemas.common import Space
from poolwise.storage.schemas.comparison import CompareFile, SimulateFile
from poolwise.storage.schemas.evidence import ExhaustiveFile, SpaceOnly, StudyFile, TableFile, TrialsFile
from poolwise.storage.schemas.fields import FileSchema, Schema
from poolwise.storage.schemas.ranking import CompleteRanking, CompleteRow, HintRanking, RankingFile
from poolwise.storage.schemas.records import (
    AssignmentEvent,
    ManifestFile,
    ProfileFile,
    SearchEvent,
    StageEvent,
    TrialRow,
)
from poolwise.storage.schemas.request import RunFile, RunRequest
from poolwise.storage.schemas.selection import RefineFile, RetrainFile, VerdictFile
from poolwise.storage.schemas.validation import validate

_SCHEMAS: tuple[type[FileSchema], ...] = (
    RunFile,
    RankingFile,
    RefineFile,
    RetrainFile,
    VerdictFile,
    ExhaustiveFile,
    StudyFile,
    TrialsFile,
    ProfileFile,
    CompareFile,
    SimulateFile,
)
FILES = {schema.FILE: schema for schema in _SCHEMAS}

__all__ = [
    "FILES",
    "AssignmentEvent",
    "CompareFile",
    "CompleteRanking",
    "CompleteRow",
    "ExhaustiveFile",
    "FileSchema",
    "HintRanking",
    "ManifestFile",
    "ProfileFile",
    "RankingFile",
    "RefineFile",
    "RetrainFile",
    "RunFile",
    "RunRequest",
    "Schema",
    "SearchEvent",
    "SimulateFile",
    "Space",
    "SpaceOnly",
    "StageEvent",
    "StudyFile",
    "TableFile",
    "TrialRow",
    "TrialsFile",
    "VerdictFile",
    "validate",
]
