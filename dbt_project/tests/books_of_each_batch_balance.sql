-- Every tick read landed, became a dead letter or was a duplicate. One row per batch whose books do not say so.
select batch_id, ticks_read, ticks_landed, dead_letters, duplicates
from {{ ref('landed_batches') }}
where ticks_read <> ticks_landed + dead_letters + duplicates
