select
    batches.batch_id,
    batches.landed_at,
    batches.landing_seconds,
    batches.waiting_seconds,
    batches.job_seconds,
    batches.commit_seconds,
    batches.check_seconds,
    batches.messages_behind,
    batches.messages,
    batches.ticks_read,
    batches.ticks_landed,
    batches.dead_letters,
    batches.duplicates,
    batches.late_ticks,
    batches.volume,
    coalesce(batches.corrections, 0) as corrections,
    coalesce(batches.corrected_ticks, 0) as corrected_ticks,
    coalesce(batches.corrected_volume, 0) as corrected_volume,
    -- The factor's digits are those of the quotient, whatever the reader's session says of divisions.
    cast(1.000000 * batches.dead_letters / nullif(batches.ticks_read, 0) as decimal(7,6)) as dead_letter_share,
    cast(1.000000 * batches.duplicates / nullif(batches.ticks_read, 0) as decimal(7,6)) as duplicate_share,
    cast(1.000000 * batches.late_ticks / nullif(batches.ticks_read, 0) as decimal(7,6)) as late_share,
    batches.verdict,
    batches.checked_at,
    coalesce(found.findings, 0) as findings
from {{ ref('landed_batches') }} as batches
-- Findings are few, and joined the server still reads the newest batches alone if a reader asks for those.
left join (
    select batch_id, count(*) as findings
    from {{ ref('batch_findings') }}
    group by batch_id
) as found on found.batch_id = batches.batch_id
