# One image for all parts of our own: Spark's master, worker and driver, set-up, dbt, producer and dashboard.
#
# Spark comes out of the locked pyspark wheel, which holds all of it, a standalone cluster too. Driver and workers must
# run the same Python with the same packages, Python 3.11 here, and the official Spark image has its Ubuntu's instead.
# Debian 12 has Java 17; the Debian that `3.11-slim` alone names has not.
FROM python:3.11-slim-bookworm

# Java's package links its manual pages, and a slim image has no folder for them.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 tickledger && install --directory --owner tickledger /app
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --root-user-action ignore --require-hashes -r requirements.lock

# dbt and Great Expectations write beside their projects.
COPY --chown=tickledger . .
RUN pip install --no-cache-dir --root-user-action ignore --no-deps --no-build-isolation --editable .

USER tickledger
ENV PYTHONUNBUFFERED=1 \
    PYSPARK_PYTHON=/usr/local/bin/python3
# Brings Spark's Kafka source into the image, and fails the build where Java or Spark do not run.
RUN SPARK_CONF_DIR=/app python -c "from pyspark.sql import SparkSession; SparkSession.builder.master('local[1]').getOrCreate().stop()"
