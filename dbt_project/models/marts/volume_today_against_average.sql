-- A trading day is one on which any sector traded: a sector that rested on it counts with nothing.
with earlier_days as (
    -- Each table's own last days first, which an index gives without reading the rows between.
    select date
    from (
        (select distinct date from {{ ref('aggregated_data') }} where date < utc_date() order by date desc limit 20)
        union
        (select distinct date from {{ ref('daily_volume') }} where date < utc_date() order by date desc limit 20)
    ) as days_of_each
    order by date desc
    limit 20
),

spans as (
    select count(*) as days, coalesce(min(date), utc_date()) as first_day
    from earlier_days
),

parts as (
    select date, sector, total_volume
    from {{ ref('aggregated_data') }}
    where date >= (select first_day from spans)
        and date <= utc_date()
    union all
    select date, sector, total_volume
    from {{ ref('daily_volume') }}
    where date >= (select first_day from spans)
        and date <= utc_date()
),

sums as (
    select
        sector,
        sum(case when date = utc_date() then total_volume else 0 end) as total_volume,
        sum(case when date < utc_date() then total_volume else 0 end) as earlier_volume
    from parts
    group by sector
)

select
    sums.sector,
    sums.total_volume,
    cast(sums.earlier_volume / nullif(spans.days, 0) as decimal(42,1)) as average_volume,
    spans.days
from sums
cross join spans
