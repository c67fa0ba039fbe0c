-- Today's volume of a sector is the same in the three views that tell it. One row per sector where it is not.
select
    today.sector,
    today.total_volume,
    verdicts.total_volume as of_all_verdicts,
    against.total_volume as against_average
from {{ ref('volume_today') }} as today
left join (
    select sector, sum(total_volume) as total_volume
    from {{ ref('volume_today_by_verdict') }}
    group by sector
) as verdicts on verdicts.sector = today.sector
left join {{ ref('volume_today_against_average') }} as against on against.sector = today.sector
where today.total_volume <> coalesce(verdicts.total_volume, -1)
   or today.total_volume <> coalesce(against.total_volume, -1)
