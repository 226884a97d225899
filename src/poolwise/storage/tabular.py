"""Results as rows, or as a data frame if pandas is installed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from poolwise.errors import RequestError

if TYPE_CHECKING:
    import pandas

# columns that several results share
MACS = {
    "macs": "MACs per image",
    "macs_ratio": "ratio to the default's MACs",
}
COST = {
    **MACS,
    "parameters": "trainable parameters",
    "activation_bytes": "bytes of activations per image in a training step, float32",
}
REACH = {
    "receptive_field": "receptive field before the head, pixels along one side",
    "productive": "productive convolutions",
}
LATENCY = {"latency_ms": "ms of a forward pass, if measured"}


class Tabular(ABC):
    """Base class of results that can be shown as a table.

    Attributes:
        COLUMNS: column name -> description with its unit, in the order of a row.
    """

    COLUMNS: ClassVar[dict[str, str]]

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """Return one dict per row, keyed by the names in COLUMNS; unknown values are None."""

    def to_dataframe(self) -> pandas.DataFrame:
        """Return ``to_rows`` as a data frame. Raises RequestError if pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise RequestError(
                "a data frame needs the package pandas: pip install 'poolwise[frames]' (to_rows does not need it)"
            ) from error
        return pandas.DataFrame(self.to_rows(), columns=list(self.COLUMNS))
