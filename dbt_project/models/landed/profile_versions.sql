-- The stream fills this table. What it is made of stands in profile_versions.yml; `streamed_table` creates it from there.
-- This query only lets `dbt show` and the tests read it.
-- Made from {{ ref('profile') }}.
select * from {{ this }}
