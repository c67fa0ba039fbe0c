-- The stream fills this table. What it is made of stands in stream_lock.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
select * from {{ this }}
