-- The aggregates of a batch hold the ticks and the volume that the ledger says it landed, and what it corrected; a batch
-- without either has none, nor has one that was rolled up. One row per batch where they differ.
select
    batches.batch_id,
    batches.ticks_landed,
    batches.corrected_ticks,
    batches.volume,
    batches.corrected_volume,
    batches.rolled_up_at,
    sums.ticks,
    sums.total_volume
from {{ ref('landed_batches') }} as batches
left join (
    select
        batch_id,
        sum(ticks) as ticks,
        sum(total_volume) as total_volume,
        sum(corrected_ticks) as corrected_ticks,
        sum(corrected_volume) as corrected_volume
    from {{ ref('aggregated_data') }}
    group by batch_id
) as sums on sums.batch_id = batches.batch_id
where case when batches.rolled_up_at is null then batches.ticks_landed + coalesce(batches.corrected_ticks, 0) else 0 end
      <> coalesce(sums.ticks, 0)
   or case when batches.rolled_up_at is null then batches.volume + coalesce(batches.corrected_volume, 0) else 0 end
      <> coalesce(sums.total_volume, 0)
   or case when batches.rolled_up_at is null then coalesce(batches.corrected_ticks, 0) else 0 end
      <> coalesce(sums.corrected_ticks, 0)
   or case when batches.rolled_up_at is null then coalesce(batches.corrected_volume, 0) else 0 end
      <> coalesce(sums.corrected_volume, 0)
