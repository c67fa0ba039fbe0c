-- Batches are numbered 1, 2, 3 … without a gap. One row per batch whose number is not its rank.
select *
from (
    select batch_id, row_number() over (order by batch_id) as place
    from {{ ref('landed_batches') }}
) as numbered
where batch_id <> place
