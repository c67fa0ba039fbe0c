-- A batch is in one of the two tables and never in both: the roll-up moves it in one transaction.
select
    date,
    sector,
    sum(total_volume) as total_volume,
    sum(ticks) as ticks
from (
    select date, sector, total_volume, ticks
    from {{ ref('aggregated_data') }}
    union all
    select date, sector, total_volume, ticks
    from {{ ref('daily_volume') }}
) as parts
group by date, sector
