-- The days as corrected are those of `volume_by_day`, and what they were corrected by is what `corrections_by_day` says.
-- One row per date and sector where it is not.
select
    seen.date,
    seen.sector,
    seen.total_volume,
    days.total_volume as of_days,
    seen.corrected_volume,
    corrections.corrected_volume as of_corrections
from {{ ref('volume_by_day_as_seen') }} as seen
left join {{ ref('volume_by_day') }} as days on days.date = seen.date and days.sector = seen.sector
left join {{ ref('corrections_by_day') }} as corrections
    on corrections.date = seen.date and corrections.sector = seen.sector
where days.total_volume is null
   or seen.total_volume <> days.total_volume
   or seen.ticks <> days.ticks
   or seen.corrected_volume <> coalesce(corrections.corrected_volume, 0)
   or seen.corrected_ticks <> coalesce(corrections.corrected_ticks, 0)
