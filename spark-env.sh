# Sourced by spark-submit through SPARK_CONF_DIR=. : which Python, which Java and which jars Spark runs on.
# Values that are set already stay, except a JAVA_HOME that is no Java 17. Without the project's .venv the first python on
# PATH is asked; where that one does not know the project, as in the image, which has all jars, it does nothing.
tickledger_python="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)/.venv/bin/python"
# -P: nothing is imported from the folder that somebody happens to be in.
if [ ! -x "$tickledger_python" ] && [ -z "${TICKLEDGER_IN_CONTAINER:-}" ]; then
    tickledger_python="$(command -v python || true)"
    "$tickledger_python" -P -c "import services.spark_settings" 2> /dev/null || tickledger_python=""
fi
if [ -x "$tickledger_python" ]; then
    # Workers would else take the first python3 on PATH, and differ from the driver.
    export PYSPARK_PYTHON="${PYSPARK_PYTHON:-$tickledger_python}"
    export PYSPARK_DRIVER_PYTHON="${PYSPARK_DRIVER_PYTHON:-$tickledger_python}"
    # Where there is no Java at all, or no Kafka source, it prints one line, and spark-submit ends before it starts anything.
    tickledger_start="$("$tickledger_python" -P -m services.spark_settings)" || exit 2
    { read -r JAVA_HOME; read -r SPARK_CONF_DIR; } <<< "$tickledger_start"
    export JAVA_HOME SPARK_CONF_DIR
    unset tickledger_start
fi
# What Spark and its Python write, temporary files too, is for their owner alone.
umask 077
# Under another locale Java finds no file below a folder with an umlaut.
case "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}" in *[Uu][Tt][Ff]*8*) ;; *) export LC_ALL=C.UTF-8 ;; esac
# Python then calls Java and Java Python over connections that both begin with a token; over those of pinned threads py4j
# asks for none where Java calls, and any program on this machine could.
export PYSPARK_PIN_THREAD=false
# Spark's web interface would else listen on every address. In a container it should: its ports are published on loopback.
[ -n "${TICKLEDGER_IN_CONTAINER:-}" ] || export SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"
unset tickledger_python
