"""Another Spark, without the secret, talks to one of ours: `python foreign_spark.py PORT driver|master`.

Tells a driver to stop. Prints what came of it.
"""

import os
import subprocess
import sys
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from services.java import java_home
from tickledger.settings import PROJECT_ROOT

ENDPOINTS = {"driver": "LocalSchedulerBackendEndpoint", "master": "Master"}


def main(port: int, whom: str) -> None:
    """Look up the driver or the master at a port of 127.0.0.1, and send StopExecutor to a driver."""
    local = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    builder = SparkSession.builder.master("local[1]").config("spark.authenticate", "false")
    for name, value in local.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    java: Any = spark._jvm
    apache = java.org.apache.spark
    address = apache.rpc.RpcAddress("127.0.0.1", port)
    try:
        found = apache.SparkEnv.get().rpcEnv().setupEndpointRef(address, ENDPOINTS[whom])
        if whom == "driver":
            found.send(getattr(apache.scheduler.local, "StopExecutor$").__getattr__("MODULE$"))
        print("sent")
    except Py4JJavaError as refused:
        print(f"refused: {refused.java_exception.toString()}")
    spark.stop()


def ask(port: int, whom: str) -> str:
    """What :func:`main` prints, in a process of its own that reads no settings of ours."""
    own = {"SPARK_CONF_DIR": "/nowhere", "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(PROJECT_ROOT)}
    environment = os.environ | own | {"JAVA_HOME": str(java_home())}
    command = [sys.executable, __file__, str(port), whom]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
