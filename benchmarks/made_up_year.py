"""A year of trading days straight into MySQL, far faster than landing them: for measuring what questions cost.

MySQL makes a day's rows of a table of numbers by itself. A day is a session of seven hours with a batch every two
seconds, the default trigger, each of a message a second. The newest day is today, whatever the hour.
"""

from datetime import date, timedelta

from tests.support.pipeline import Pipeline
from tickledger.stores import connect_mysql

BATCHES_A_DAY = 7 * 3600 // 2
_SHARES = "200 * (MOD(n, 900) + 1)"
_OPENED = "TIMESTAMP(%(day)s, '02:00:00') + INTERVAL n * 2 SECOND"
_SPAN = f"{_OPENED}, {_OPENED} + INTERVAL 1 SECOND, {_OPENED} + INTERVAL 2 SECOND"
_STATEMENTS = (
    f"""INSERT INTO aggregated_data (processing_id, sector, total_volume, date, batch_id, ticks, first_created_at,
                                     last_created_at, processed_at)
    SELECT (%(first)s + n) * 1000 + place, sector, companies * {_SHARES}, %(day)s, %(first)s + n, 2 * companies, {_SPAN}
    FROM made_up_numbers CROSS JOIN made_up_sectors""",
    f"""INSERT INTO landed_batches (batch_id, topic, topic_id, messages, ticks_read, ticks_landed, dead_letters,
                                    duplicates, late_ticks, volume, landing_seconds, contract_hash, verdict,
                                    first_created_at, last_created_at, landed_at, checked_at)
    SELECT %(first)s + n, 'made_up', '00000000-0000-0000-0000-000000000001', 2, 2 * companies, 2 * companies, 0, 0, 0,
           companies * {_SHARES}, 0.5, '-', 'passed', {_SPAN}, {_OPENED} + INTERVAL 3 SECOND
    FROM made_up_numbers CROSS JOIN (SELECT SUM(companies) AS companies FROM made_up_sectors) AS all_of_them""",
    """INSERT INTO landed_offsets (batch_id, kafka_partition, from_offset, until_offset)
    SELECT %(first)s + n, p, %(first)s + n - 1, %(first)s + n
    FROM made_up_numbers CROSS JOIN (SELECT 0 AS p UNION ALL SELECT 1) AS partitions""",
)


class Year:
    """Days in MySQL, none at first. Batches are numbered as if all `most_days` had been landed in their order."""

    def __init__(self, pipeline: Pipeline, most_days: int, today: date) -> None:
        self._pipeline, self._most_days, self._today, self._days = pipeline, most_days, today, 0
        pipeline.execute("CREATE TABLE made_up_numbers (n bigint PRIMARY KEY)")
        pipeline.execute(f"INSERT INTO made_up_numbers VALUES {', '.join(f'({n})' for n in range(BATCHES_A_DAY))}")
        pipeline.execute(
            "CREATE TABLE made_up_sectors AS SELECT sector, COUNT(*) AS companies,"
            " ROW_NUMBER() OVER (ORDER BY sector) AS place FROM profile GROUP BY sector"
        )

    def grow_to(self, days: int) -> None:
        """Add earlier days until there are this many, the oldest first, as landing would have."""
        # A day's statement may take longer than any of the stream's, and reads tables that the stream may not.
        connection = connect_mysql(self._pipeline.settings, self._pipeline.settings.dbt_mysql, answer_seconds=600)
        for age in range(days - 1, self._days - 1, -1):
            first, day = (self._most_days - 1 - age) * BATCHES_A_DAY + 1, self._today - timedelta(days=age)
            for statement in _STATEMENTS:
                connection.cursor().execute(statement, {"first": first, "day": day})
            connection.commit()
        connection.close()
        self._days = days
        for table in ("aggregated_data", "landed_batches", "landed_offsets"):
            self._pipeline.rows(f"ANALYZE TABLE {table}")
