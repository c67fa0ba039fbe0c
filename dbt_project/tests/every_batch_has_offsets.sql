-- A batch covers messages of at least one partition. One row per batch that covers none.
select batches.batch_id
from {{ ref('landed_batches') }} as batches
left join {{ ref('landed_offsets') }} as offsets on offsets.batch_id = batches.batch_id
where offsets.batch_id is null
