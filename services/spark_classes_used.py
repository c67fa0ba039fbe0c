"""Submitted to Spark by `services.spark_classes`: a query that uses the classes of the stream's, without any server."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

if TYPE_CHECKING:
    import pyarrow

BATCHES = 3


def _handed_on(batches: "Iterable[pyarrow.RecordBatch]") -> "Iterator[pyarrow.RecordBatch]":
    yield from batches


def _collect(frame: DataFrame, _batch_id: int) -> None:
    number = F.col("value")
    messages = frame.select(
        number.cast("int").alias("partition"),
        number.alias("offset"),
        F.unix_millis("timestamp").alias("time_ms"),
        F.encode(number.cast("string"), "utf-8").alias("value"),
    )
    messages.mapInArrow(_handed_on, messages.schema).collect()


def main() -> None:
    """Run some micro-batches of made-up messages."""
    spark = SparkSession.builder.master("local[2]").getOrCreate()
    source = spark.readStream.format("rate").option("rowsPerSecond", 100).load()
    query = source.writeStream.foreachBatch(_collect).trigger(processingTime="0 seconds").start()
    while query.isActive and not (query.lastProgress and query.lastProgress["batchId"] >= BATCHES):
        time.sleep(0.2)
    query.stop()
    spark.stop()


if __name__ == "__main__":
    main()
