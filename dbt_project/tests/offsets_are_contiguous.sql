-- Within a partition each range, landed or skipped, starts where the one before it ended. One row per range that does not.
select *
from (
    select
        kafka_partition,
        from_offset,
        lag(until_offset) over (partition by kafka_partition order by from_offset) as end_before
    from (
        select kafka_partition, from_offset, until_offset from {{ ref('landed_offsets') }}
        union all
        select kafka_partition, from_offset, until_offset from {{ ref('skipped_offsets') }}
    ) as every_range
) as ranges
where from_offset <> end_before
