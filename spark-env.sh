# Sourced by spark-submit through SPARK_CONF_DIR=. : which Python and which Java Spark runs on.
# Values that are set already stay, except a JAVA_HOME that is no Java 17. Without the project's .venv it does nothing.
tickledger_python="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)/.venv/bin/python"
if [ -x "$tickledger_python" ]; then
    # Workers would else take the first python3 on PATH, and differ from the driver.
    export PYSPARK_PYTHON="${PYSPARK_PYTHON:-$tickledger_python}"
    export PYSPARK_DRIVER_PYTHON="${PYSPARK_DRIVER_PYTHON:-$tickledger_python}"
    # Where there is no Java at all it prints one line, and spark-submit ends before it starts anything.
    JAVA_HOME="$("$tickledger_python" -m services.java)" || exit 2
    export JAVA_HOME
fi
# Spark's web interface would else listen on every address.
export SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"
unset tickledger_python
