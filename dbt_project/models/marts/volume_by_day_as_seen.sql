select
    date,
    sector,
    sum(total_volume - coalesce(corrected_volume, 0)) as volume_as_seen,
    sum(coalesce(corrected_volume, 0)) as corrected_volume,
    sum(total_volume) as total_volume,
    sum(ticks - coalesce(corrected_ticks, 0)) as ticks_as_seen,
    sum(coalesce(corrected_ticks, 0)) as corrected_ticks,
    sum(ticks) as ticks
from (
    select date, sector, total_volume, corrected_volume, ticks, corrected_ticks
    from {{ ref('aggregated_data') }}
    union all
    select cast(date as date), sector, total_volume, corrected_volume, ticks, corrected_ticks
    from {{ ref('daily_volume') }}
) as parts
group by date, sector
