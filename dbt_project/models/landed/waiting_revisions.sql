-- The stream fills this table. What it is made of stands in waiting_revisions.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ source('kafka', 'trading_data') }}.
select * from {{ this }}
