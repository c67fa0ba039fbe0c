-- `tickledger fill-hours` fills this table. What it is made of stands in filled_days.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ ref('aggregated_data') }}, {{ ref('daily_volume') }}, {{ ref('landed_batches') }}.
select * from {{ this }}
