-- The volume and ticks of all days are those of all landed batches. One row if they are not.
select *
from (
    select
        (select coalesce(sum(total_volume), 0) from {{ ref('volume_by_day') }}) as volume_of_days,
        (select coalesce(sum(volume + coalesce(corrected_volume, 0)), 0) from {{ ref('landed_batches') }}) as volume_of_batches,
        (select coalesce(sum(ticks), 0) from {{ ref('volume_by_day') }}) as ticks_of_days,
        (select coalesce(sum(ticks_landed + coalesce(corrected_ticks, 0)), 0) from {{ ref('landed_batches') }}) as ticks_of_batches
) as totals
where volume_of_days <> volume_of_batches
   or ticks_of_days <> ticks_of_batches
