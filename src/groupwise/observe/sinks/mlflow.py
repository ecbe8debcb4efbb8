"""MLflow: metrics of the active run, or of one that is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from groupwise.errors import RecordError


@final
class MLflow:
    """Logs metrics to a run of MLflow, by its id, or to the active one.

    Raises:
        RecordError: neither `mlflow` nor `mlflow-skinny` is installed.
    """

    def __init__(self, run_id: str | None = None) -> None:
        try:
            import mlflow
        except ImportError:
            raise RecordError("this sink needs the package mlflow: pip install mlflow-skinny") from None
        self._mlflow = mlflow
        self._run_id = run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step, all in one call."""
        self._mlflow.log_metrics(dict(values), step=step, run_id=self._run_id)
