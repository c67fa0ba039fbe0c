-- `tickledger roll-up` fills this table. What it is made of stands in daily_volume.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ ref('aggregated_data') }}.
select * from {{ this }}
