select
    aggregates.sector,
    batches.verdict,
    sum(aggregates.total_volume) as total_volume,
    sum(aggregates.ticks) as ticks
from {{ ref('aggregated_data') }} as aggregates
inner join {{ ref('landed_batches') }} as batches on batches.batch_id = aggregates.batch_id
where aggregates.date = {{ today() }}
group by aggregates.sector, batches.verdict
