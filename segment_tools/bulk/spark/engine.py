"""What is asked of Spark itself, which is loaded when it is first asked."""

from importlib import import_module
from typing import Any, cast

from segment_tools.errors import NotConfigured


def partition_id() -> int:
    """Which partition the running task writes; the first, where none runs, as in a test of one's own."""
    try:
        found: Any = import_module("pyspark")
    except ImportError:
        return 0
    context = found.TaskContext.get()
    return cast("int", context.partitionId()) if context else 0


def accumulator(spark: Any, zero: Any, adding: Any) -> Any:
    """An accumulator of the session's context, or of the context itself.

    Raises:
        NotConfigured: there is no pyspark, or the session has no context of its own.
    """
    try:
        import_module("pyspark")
    except ImportError:
        hint = "pip install 'segment-tools[spark]'"
        raise NotConfigured("spark", "The package pyspark is not installed.", hint=hint) from None
    try:
        context: Any = getattr(spark, "sparkContext", spark)
        return context.accumulator(zero, adding)
    except Exception as error:  # Spark Connect has errors of its own for what it has not
        if not type(error).__module__.startswith("pyspark") and not isinstance(error, AttributeError):
            raise
        text = "A report needs a session with a SparkContext, which Spark Connect has not."
        hint = "Leave report= out there: with checkpoints= the counts are in the checkpoints, with rejected= the rows."
        raise NotConfigured("report", text, hint=hint) from None
