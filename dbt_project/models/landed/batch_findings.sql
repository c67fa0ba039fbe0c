-- The checks of landed batches fill this table. What it is made of stands in batch_findings.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
select * from {{ this }}
