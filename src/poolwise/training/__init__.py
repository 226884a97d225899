"""Training: single steps and evaluations, precision, devices, stand-alone trainings and worker processes."""

from poolwise.training.precision import PRECISIONS, Precision, choose_device, device_precision
from poolwise.training.step import (
    LossNotFinite,
    accuracy,
    check_finite,
    compiled,
    correct,
    correct_each,
    cosine,
    count_correct,
    forward_all,
    right_of,
    sgd,
    train_group,
    train_step,
)

__all__ = [
    "PRECISIONS",
    "LossNotFinite",
    "Precision",
    "accuracy",
    "check_finite",
    "choose_device",
    "compiled",
    "correct",
    "correct_each",
    "cosine",
    "count_correct",
    "device_precision",
    "forward_all",
    "right_of",
    "sgd",
    "train_group",
    "train_step",
]
