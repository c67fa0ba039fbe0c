-- The checks of landed batches fill this table. What it is made of stands in batch_findings.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ ref('landed_batches') }}, {{ ref('aggregated_data') }},
-- {{ source('cassandra', 'real_time_data') }}, {{ source('cassandra', 'dead_letters') }}.
select * from {{ this }}
