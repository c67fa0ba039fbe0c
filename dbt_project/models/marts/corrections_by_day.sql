-- Rolled-up batches keep what they corrected, not when each did.
select
    date,
    sector,
    sum(changed_ticks) as changed_ticks,
    sum(corrected_ticks) as corrected_ticks,
    sum(corrected_volume) as corrected_volume,
    count(distinct batch_id) as batches,
    min(landed_at) as first_landed_at,
    max(landed_at) as last_landed_at,
    max(days_late) as most_days_late
from (
    select
        aggregates.date,
        aggregates.sector,
        aggregates.changed_ticks,
        aggregates.corrected_ticks,
        aggregates.corrected_volume,
        aggregates.batch_id,
        batches.landed_at,
        datediff({{ trading_day_of('batches.landed_at') }}, aggregates.date) as days_late
    from {{ ref('aggregated_data') }} as aggregates
    inner join {{ ref('landed_batches') }} as batches on batches.batch_id = aggregates.batch_id
    where aggregates.corrected_ticks is not null
    union all
    select
        cast(date as date),
        sector,
        changed_ticks,
        corrected_ticks,
        corrected_volume,
        cast(null as signed),
        cast(null as datetime(3)),
        cast(null as signed)
    from {{ ref('daily_volume') }}
    where corrected_ticks is not null
) as parts
group by date, sector
