"""One pass with Spark's own parts, tuned: `from_json`, the connector for Cassandra, an upsert of the sums into MySQL.

What one would write who keeps to Spark 3.5 and its connector but has read their manuals: one query, each micro-batch
parsed once and kept for both stores, the key of our own table, batches by partition. It writes the same rows and
volumes as our stream. It keeps no ledger, tells no bad message from a good one, counts a tick twice that comes twice,
and checks nothing. Runs in the environment of `benchmarks/lab.py`.
"""

import os
from typing import Any

import mysql.connector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.lab import TICK, messages_of, print_landed, session
from benchmarks.sums import upsert

#: The settings that moved the figure; the connector's default groups a task's rows by replica and sends 1 KiB at once.
TUNED = {
    "spark.cassandra.output.batch.grouping.key": "partition",
    "spark.cassandra.output.batch.size.rows": "200",
    "spark.cassandra.output.batch.grouping.buffer.size": "200",
    "spark.cassandra.output.concurrent.writes": "48",
    "spark.cassandra.output.consistency.level": "LOCAL_ONE",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
}


def ticks_of(spark: SparkSession) -> DataFrame:
    """The topic's ticks as `real_time_data` has them, one row per tick."""
    arrays = messages_of(spark).select(
        F.from_json(F.col("value").cast("string"), f"array<struct<{TICK}>>").alias("ticks"),
        F.col("partition").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
    )
    ticks = arrays.select(F.explode("ticks").alias("tick"), "kafka_partition", "kafka_offset")
    return ticks.select("tick.*", F.to_date("tick.created_at").alias("trade_date"), "kafka_partition", "kafka_offset")


def land(mysql: Any, ticks: DataFrame, batch: int) -> None:
    """Write a micro-batch's rows to Cassandra and its sums to MySQL; again leaves both as they are."""
    kept = ticks.persist()
    kept.write.format("org.apache.spark.sql.cassandra").options(
        table="real_time_data", keyspace=os.environ["CASSANDRA_KEYSPACE"]
    ).mode("append").save()
    sums = kept.groupBy("trade_date", "sector").agg(F.count("*").alias("ticks"), F.sum("volume").alias("shares"))
    upsert(mysql, batch + 1, {(row.trade_date, row.sector): (row.ticks, row.shares) for row in sums.collect()})
    kept.unpersist()


def main() -> None:
    """Land what the topic holds; print a line of JSON for each micro-batch, as the other engines do."""
    spark = session("connector", TUNED)
    mysql_ = mysql.connector.connect(
        **{name: os.environ[f"MYSQL_{name.upper()}"] for name in ("host", "port", "user", "password", "database")}
    )
    writer = ticks_of(spark).writeStream.foreachBatch(lambda ticks, batch: land(mysql_, ticks, batch))
    query = writer.trigger(availableNow=True).start()
    query.awaitTermination()
    print_landed(query.recentProgress)
    spark.stop()


if __name__ == "__main__":
    main()
