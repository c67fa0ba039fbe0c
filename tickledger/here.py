"""What a person types to fix something: on a machine, or with docker-compose.yml, whose image sets a variable."""

import os

IN_CONTAINER = os.environ.get("TICKLEDGER_IN_CONTAINER") == "1"

#: Makes what clients expect to find: topics, accounts, Cassandra's tables.
SET_UP = "docker compose up --detach" if IN_CONTAINER else "make services"
#: The same, also for servers that something else started.
SET_UP_ANYWHERE = SET_UP if IN_CONTAINER else f"{SET_UP}, or for servers of your own python -m services.set_up stores"
#: Makes MySQL's tables and the profile.
DBT = "docker compose run --rm dbt" if IN_CONTAINER else "cd dbt_project && dbt seed && dbt run"
#: Lands what waits.
STREAM = f"{SET_UP} stream" if IN_CONTAINER else "SPARK_CONF_DIR=. spark-submit streaming/stream_ticks.py"
#: Starts everything.
ALL = SET_UP if IN_CONTAINER else "make demo"
#: In front of a command that is typed as it is elsewhere.
RUN = "docker compose run --rm tools " if IN_CONTAINER else ""
