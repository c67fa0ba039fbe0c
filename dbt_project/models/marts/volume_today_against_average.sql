-- A trading day is one on which any sector traded: a sector that rested on it counts with nothing.
with earlier_days as (
    -- Each table's own last days first, which an index gives without reading the rows between.
    select date
    from (
        (select distinct date from {{ ref('aggregated_data') }} where date < {{ today() }} order by date desc limit 20)
        union
        (select distinct date from {{ ref('daily_volume') }} where date < {{ today() }} order by date desc limit 20)
    ) as days_of_each
    order by date desc
    limit 20
),

days as (
    select date from earlier_days
    union all
    select {{ today() }} as date
),

-- Joined day by day, an index gives each day's rows; compared with a subquery's date, MariaDB would read all days.
parts as (
    select aggregates.date, aggregates.sector, sum(aggregates.total_volume) as total_volume
    from days
    inner join {{ ref('aggregated_data') }} as aggregates on aggregates.date = days.date
    group by aggregates.date, aggregates.sector
    union all
    select rolled_up.date, rolled_up.sector, rolled_up.total_volume
    from days
    inner join {{ ref('daily_volume') }} as rolled_up on rolled_up.date = days.date
),

sums as (
    select
        sector,
        sum(case when date = {{ today() }} then total_volume else 0 end) as total_volume,
        sum(case when date < {{ today() }} then total_volume else 0 end) as earlier_volume
    from parts
    group by sector
)

select
    sums.sector,
    sums.total_volume,
    cast(sums.earlier_volume / nullif(spans.days, 0) as decimal(42,1)) as average_volume,
    spans.days
from sums
cross join (select count(*) as days from earlier_days) as spans
