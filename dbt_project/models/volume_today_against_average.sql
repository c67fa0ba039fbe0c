-- A trading day is one on which any sector traded: a sector that rested on it counts with nothing.
with earlier_days as (
    select distinct date
    from {{ ref('aggregated_data') }}
    where date < utc_date()
    order by date desc
    limit 20
),

spans as (
    select count(*) as days, coalesce(min(date), utc_date()) as first_day
    from earlier_days
),

sums as (
    select
        aggregates.sector,
        sum(case when aggregates.date = utc_date() then aggregates.total_volume else 0 end) as total_volume,
        sum(case when aggregates.date < utc_date() then aggregates.total_volume else 0 end) as earlier_volume
    from {{ ref('aggregated_data') }} as aggregates
    cross join spans
    where aggregates.date >= spans.first_day
        and aggregates.date <= utc_date()
    group by aggregates.sector
)

select
    sums.sector,
    sums.total_volume,
    cast(sums.earlier_volume / nullif(spans.days, 0) as decimal(42,1)) as average_volume,
    spans.days
from sums
cross join spans
