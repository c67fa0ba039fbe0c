"""Another Spark, without the secret, tells the stream's to stop: `python foreign_spark.py PORT`. Prints what came."""

import sys
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession


def main(port: int) -> None:
    """Send StopExecutor to the driver at a port of 127.0.0.1."""
    local = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    builder = SparkSession.builder.master("local[1]").config("spark.authenticate", "false")
    for name, value in local.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    java: Any = spark._jvm
    apache = java.org.apache.spark
    address = apache.rpc.RpcAddress("127.0.0.1", port)
    try:
        driver = apache.SparkEnv.get().rpcEnv().setupEndpointRef(address, "LocalSchedulerBackendEndpoint")
        driver.send(getattr(apache.scheduler.local, "StopExecutor$").__getattr__("MODULE$"))
        print("sent")
    except Py4JJavaError as refused:
        print(f"refused: {refused.java_exception.toString()}")
    spark.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
