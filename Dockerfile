# One image for all parts of our own: Spark's master, worker and driver, set-up, dbt, producer, dashboard and tools.
#
# Spark comes out of the locked pyspark wheel, which holds all of it, a standalone cluster too. Driver and workers must
# run the same Python with the same packages, Python 3.11 here, and the official Spark image has its Ubuntu's instead.
# Debian 12 has Java 17; the Debian that `3.11-slim` alone names has not.
FROM python:3.11-slim-bookworm AS java
# Java's package links its manual pages, and a slim image has no folder for them.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
ENV PATH=/opt/venv/bin:$PATH


# Packages change seldom: only the files that say which they are stand before them.
FROM java AS packages
RUN python3 -m venv /opt/venv
WORKDIR /packages
COPY requirements.lock containers/requirements.py ./
RUN python requirements.py < requirements.lock > needed.lock \
    && pip install --no-cache-dir --root-user-action ignore --require-hashes --no-deps -r needed.lock
# Spark's Kafka source goes where Spark's own jars are, each jar by its hash. Fails the build where Spark does not run.
COPY services/maven.py services/jars.lock spark-defaults.conf spark-env.sh log4j2.properties ./
RUN python maven.py spark-kafka-4.2.0 /opt/venv/lib/python3.11/site-packages/pyspark/jars \
    && SPARK_CONF_DIR=/packages python -c \
        "from pyspark.sql import SparkSession; SparkSession.builder.master('local[1]').getOrCreate().stop()"
# An eighth of the image that nothing of ours looks at: tests of others, the store of queries that keep a state, and
# what makes Arrow speak to servers and to S3.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN find numpy scipy pandas pyarrow networkx -type d -name tests -prune -exec rm -r {} + \
    && rm -r pyspark/jars/rocksdbjni-*.jar pyarrow/include pyarrow/*flight* pyarrow/*s3*
# What the image is made of, as pip sees it: each package with its version, licence and the hash of its file.
RUN pip inspect --local --quiet > /opt/venv/packages.json


FROM java
LABEL org.opencontainers.image.title="tickledger" \
      org.opencontainers.image.description="Stock ticks from Kafka through Spark to Cassandra and MySQL, with a ledger" \
      org.opencontainers.image.licenses="Apache-2.0"
# The master keeps in that folder what it must know after a crash; a volume takes over whose it is.
RUN useradd --no-create-home --home-dir /tmp --uid 10001 tickledger \
    && install --directory --owner tickledger --group tickledger --mode 700 /var/lib/spark
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY . .
# dbt wants its folder of packages.
RUN mkdir -p dbt_project/dbt_packages \
    && pip install --no-cache-dir --root-user-action ignore --no-deps --no-build-isolation --editable . \
    && python -m compileall -q .
USER tickledger
# All that is written goes below /tmp, so that the rest can be read-only.
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYSPARK_PYTHON=/opt/venv/bin/python \
    DBT_PROFILES_DIR=/tmp/dbt \
    DBT_TARGET_PATH=/tmp/dbt/target \
    DBT_LOG_PATH=/tmp/dbt/logs \
    TICKLEDGER_IN_CONTAINER=1
