-- The gravest finding of a batch decides its verdict; without a finding it passed or is unchecked.
-- One row per batch whose verdict says something else.
select batches.batch_id, batches.verdict, findings.gravest
from {{ ref('landed_batches') }} as batches
left join (
    -- 'critical' sorts before 'warning'
    select batch_id, min(severity) as gravest
    from {{ ref('batch_findings') }}
    group by batch_id
) as findings on findings.batch_id = batches.batch_id
where (findings.gravest is null and batches.verdict not in ('unchecked', 'passed'))
   or (findings.gravest = 'warning' and batches.verdict <> 'warned')
   or (findings.gravest = 'critical' and batches.verdict <> 'failed')
   or ((batches.verdict = 'unchecked') <> (batches.checked_at is null))
