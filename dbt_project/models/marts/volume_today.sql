select
    sector,
    sum(total_volume) as total_volume
from {{ ref('aggregated_data') }}
-- The trading day is the UTC date, whatever the time zone of the reader's session.
where date = utc_date()
group by sector
