"""`python -m services.spark_settings`, of spark-env.sh: what spark-submit starts with on this machine.

Spark's settings as spark-defaults.conf has them, with the class path of this machine: PySpark's jars, their archive and
the Kafka source, by absolute names, so that no jar of the folder is loaded in which somebody types the command. Prints
JAVA_HOME and the folder of the settings, a line each.
"""

import os
import shutil
import sys
from pathlib import Path

from dotenv import dotenv_values

from services.jars import SPARK_KAFKA, classpath, fetch
from services.java import SERVICES_DIR, SETTINGS, java_home
from tickledger.errors import run_command
from tickledger.settings import PROJECT_ROOT, env_file

FOLDER = SERVICES_DIR / SETTINGS
#: The archive of Spark's classes, and its jars: a folder without the version of Python in its name.
ARCHIVE = PROJECT_ROOT / ".venv" / "spark-classes.jsa"
JARS = PROJECT_ROOT / ".venv" / "spark-jars"


def write_settings() -> Path:
    """Write the folder of settings, with the jars that they name fetched. Raises TickledgerError if that fails."""
    kafka = fetch(SPARK_KAFKA, lambda line: print(line, file=sys.stderr, flush=True))
    archive = f'-XX:SharedArchiveFile="{ARCHIVE}" -Xlog:disable -Xlog:all=error:stderr'
    own = {
        # They come first: Java takes an archive only if the class path begins as its own did.
        "spark.driver.extraClassPath": classpath(JARS),
        "spark.driver.defaultJavaOptions": archive,
        # spark.pyspark.python, where somebody sets it, is the workers' alone.
        "spark.pyspark.driver.python": os.environ.get("PYSPARK_DRIVER_PYTHON", sys.executable),
        # Executors elsewhere get these from the driver.
        "spark.jars": ",".join(map(str, sorted(kafka.glob("*.jar")))),
    }
    # Parts of Spark on other machines show each other one secret; without it, a start makes its own.
    if secret := os.environ.get("SPARK_PASSWORD") or dotenv_values(env_file()).get("SPARK_PASSWORD"):
        own["spark.authenticate.secret"] = secret
    text = "# Written at every start of Spark from the project's spark-defaults.conf; change that instead.\n"
    text += (PROJECT_ROOT / "spark-defaults.conf").read_text()
    FOLDER.mkdir(parents=True, exist_ok=True)
    _replace(FOLDER / "spark-defaults.conf", text + "".join(f"{name} {value}\n" for name, value in own.items()))
    shutil.copy(PROJECT_ROOT / "log4j2.properties", FOLDER)
    return FOLDER


def _replace(file: Path, text: str) -> None:
    """In one step: another start may be reading it."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(file)


def main() -> None:
    """Write the settings, and say where Java and they are."""
    print(java_home(), write_settings(), sep="\n")


if __name__ == "__main__":
    run_command(main)
