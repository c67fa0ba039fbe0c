-- `daily_volume` holds the ticks and the volume of the batches that were rolled up, and those are the oldest ones.
-- One row if it does not.
select *
from (
    select
        (select coalesce(sum(total_volume), 0) from {{ ref('daily_volume') }}) as volume_of_days,
        coalesce(sum(case when rolled_up_at is not null then volume + coalesce(corrected_volume, 0) end), 0) as volume_of_batches,
        (select coalesce(sum(ticks), 0) from {{ ref('daily_volume') }}) as ticks_of_days,
        coalesce(sum(case when rolled_up_at is not null then ticks_landed + coalesce(corrected_ticks, 0) end), 0) as ticks_of_batches,
        max(case when rolled_up_at is not null then batch_id end) as newest_rolled_up,
        min(case when rolled_up_at is null then batch_id end) as oldest_left
    from {{ ref('landed_batches') }}
) as totals
where volume_of_days <> volume_of_batches
   or ticks_of_days <> ticks_of_batches
   or newest_rolled_up > oldest_left
