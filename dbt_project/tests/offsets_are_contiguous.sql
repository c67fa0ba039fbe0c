-- Within a partition each batch starts where the one before it ended. One row per range that does not.
select *
from (
    select
        batch_id,
        kafka_partition,
        from_offset,
        lag(until_offset) over (partition by kafka_partition order by batch_id) as end_before
    from {{ ref('landed_offsets') }}
) as ranges
where from_offset <> end_before
