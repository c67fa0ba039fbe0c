-- `tickledger fill-hours` fills this table. What it is made of stands in company_hours.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ source('cassandra', 'real_time_data') }}, {{ ref('landed_offsets') }}, {{ ref('filled_days') }}.
select * from {{ this }}
