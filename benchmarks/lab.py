"""The design of the lab that this project started from, in our own words: two queries, the connectors' defaults.

Runs on a Spark of its own (3.5, with the connector for Cassandra), from its own environment; see `make bench`. Each
query reads the topic by itself: one appends the raw ticks to a table of Cassandra whose key is `id`, the other sums
each of its micro-batches by date and sector and appends that to MySQL by JDBC. It keeps no ledger and checks nothing.

The lab starts a micro-batch every 10 and every 60 seconds. Here they follow each other at once, which is to its favour.
"""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

TICK = (
    "id bigint, created_at timestamp, volume bigint, market_cap decimal(38,4), ticker string, price decimal(38,4),"
    " sector string"
)
TICKS_A_MESSAGE = 10


def write_raw(ticks: DataFrame, _batch: int) -> None:
    """Append the batch to Cassandra."""
    ticks.write.format("org.apache.spark.sql.cassandra").options(
        table="lab_real_time_data", keyspace=os.environ["CASSANDRA_KEYSPACE"]
    ).mode("append").save()


def write_sums(ticks: DataFrame, _batch: int) -> None:
    """Append the batch's volume by date and sector to MySQL."""
    sums = (
        ticks.withColumn("date", F.to_date("created_at"))
        .groupBy("date", "sector")
        .agg(F.sum("volume").alias("total_volume"))
        .withColumn("processed_at", F.current_timestamp())
    )
    url = f"jdbc:mysql://{os.environ['MYSQL_HOST']}:{os.environ['MYSQL_PORT']}/{os.environ['MYSQL_DATABASE']}"
    account = {"user": os.environ["MYSQL_USER"], "password": os.environ["MYSQL_PASSWORD"]}
    sums.write.jdbc(url, "lab_aggregated_data", "append", account | {"driver": "com.mysql.cj.jdbc.Driver"})


def messages_of(spark: SparkSession) -> DataFrame:
    """The topic from its beginning, as Spark's Kafka source gives it."""
    return (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["KAFKA_BOOTSTRAP_SERVERS"])
        .option("subscribe", os.environ["KAFKA_TOPIC"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", os.environ["STREAM_MAX_OFFSETS_PER_TRIGGER"])
        .load()
    )


def start(spark: SparkSession, write: Any) -> Any:
    """One of the two queries."""
    arrays = messages_of(spark).select(
        F.from_json(F.col("value").cast("string"), f"array<struct<{TICK}>>").alias("ticks")
    )
    ticks = arrays.select(F.explode("ticks").alias("tick")).select("tick.*")
    return ticks.writeStream.foreachBatch(write).outputMode("append").trigger(availableNow=True).start()


def session(name: str, settings: dict[str, str]) -> SparkSession:
    """A Spark session that reaches Cassandra."""
    builder = (
        SparkSession.builder.appName(name)
        .config("spark.cassandra.connection.host", os.environ["CASSANDRA_HOSTS"])
        .config("spark.cassandra.connection.port", os.environ["CASSANDRA_PORT"])
        .config("spark.cassandra.auth.username", os.environ["CASSANDRA_USER"])
        .config("spark.cassandra.auth.password", os.environ["CASSANDRA_PASSWORD"])
        .config("spark.sql.session.timeZone", "UTC")
    )
    for setting, value in settings.items():
        builder = builder.config(setting, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def print_landed(progress: Sequence[Any], done_at: float = 0.0) -> None:
    """Print a line of JSON for each micro-batch of ticks; `done_at` is when all of them count as landed, if later."""
    batches = [one for one in progress if one["numInputRows"]]
    landed = [_landed(one) for one in batches]
    landed[-1]["at"] = max(landed[-1]["at"], done_at)
    for one in landed:
        print("\n" + json.dumps(one), flush=True)
    # Spark's own figures, for `make bench` with --profile: milliseconds.
    phases = {name: [one["durationMs"].get(name) for one in batches] for name in batches[0]["durationMs"]}
    print("phases " + json.dumps(phases), flush=True)


def main() -> None:
    """Land what the topic holds; print a line of JSON for each micro-batch of ticks, as the other engines do."""
    spark = session("lab", {})
    queries = [start(spark, write) for write in (write_raw, write_sums)]
    for query in queries:
        query.awaitTermination()
    # All is landed only when the slower of the two is done.
    print_landed(queries[0].recentProgress, max(_landed(one)["at"] for one in queries[1].recentProgress))
    spark.stop()


def _landed(progress: dict[str, Any]) -> dict[str, float]:
    began = datetime.fromisoformat(progress["timestamp"].replace("Z", "+00:00")).timestamp()
    done = began + progress["durationMs"]["triggerExecution"] / 1000
    return {"at": done, "ticks": progress["numInputRows"] * TICKS_A_MESSAGE}


if __name__ == "__main__":
    main()
