-- A batch is in one of the two tables and never in both: the roll-up moves it in one transaction.
-- The cast makes the union's date one that may be null: of one that may not, MySQL 9.7 asks "is null" as = '0000-00-00',
-- and refuses its own question.
select
    date,
    sector,
    sum(total_volume) as total_volume,
    sum(ticks) as ticks
from (
    -- Summed by itself, for which an index gives the batches' rows in this order.
    select date, sector, sum(total_volume) as total_volume, sum(ticks) as ticks
    from {{ ref('aggregated_data') }}
    group by date, sector
    union all
    select cast(date as date), sector, total_volume, ticks
    from {{ ref('daily_volume') }}
) as parts
group by date, sector
