"""How every engine beside ours brings a batch's volumes to MySQL. Needs nothing else of the project."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

#: Numbers that a batch keeps for its rows: one per date and sector.
ROWS_A_BATCH = 1000


def upsert(mysql: Any, batch_id: int, sums: Mapping[tuple[date, str], tuple[int, int]]) -> None:
    """Write a batch's (ticks, shares) by date and sector into `aggregated_data` and commit; again changes nothing."""
    now = datetime.now(UTC).replace(tzinfo=None)
    cursor = mysql.cursor()
    cursor.executemany(
        "INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,"
        " first_created_at, last_created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON DUPLICATE KEY UPDATE total_volume = VALUES(total_volume), ticks = VALUES(ticks)",
        [
            (batch_id * ROWS_A_BATCH + place, now, sector, volume, day, batch_id, ticks, now, now)
            for place, ((day, sector), (ticks, volume)) in enumerate(sorted(sums.items()))
        ],
    )
    mysql.commit()
