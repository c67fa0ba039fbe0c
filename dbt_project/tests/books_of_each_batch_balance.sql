-- Every tick read landed, corrects one, became a dead letter or was a duplicate. One row per batch whose books do not
-- say so.
select batch_id, ticks_read, ticks_landed, corrections, dead_letters, duplicates
from {{ ref('landed_batches') }}
where ticks_read <> ticks_landed + coalesce(corrections, 0) + dead_letters + duplicates
