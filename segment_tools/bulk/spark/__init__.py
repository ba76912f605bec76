"""DataFrames of Apache Spark sent as messages: `df.foreachPartition(write_segment("orders-2026", ...))`.

Needs the extra `spark`; pyspark itself is first asked for by a `Report`, or by Spark's own worker.
"""

from segment_tools.bulk.spark.report import RejectedRow, Report
from segment_tools.bulk.spark.writing import Writer, write_segment

__all__ = ["RejectedRow", "Report", "Writer", "write_segment"]
