-- The aggregates of a batch hold the ticks and the volume that the ledger says it landed; a batch without landed
-- ticks has none, nor has one that was rolled up. One row per batch where they differ.
select
    batches.batch_id,
    batches.ticks_landed,
    batches.volume,
    batches.rolled_up_at,
    sums.ticks,
    sums.total_volume
from {{ ref('landed_batches') }} as batches
left join (
    select batch_id, sum(ticks) as ticks, sum(total_volume) as total_volume
    from {{ ref('aggregated_data') }}
    group by batch_id
) as sums on sums.batch_id = batches.batch_id
where case when batches.rolled_up_at is null then batches.ticks_landed else 0 end <> coalesce(sums.ticks, 0)
   or case when batches.rolled_up_at is null then batches.volume else 0 end <> coalesce(sums.total_volume, 0)
