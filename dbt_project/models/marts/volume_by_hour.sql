select
    date,
    starts_at,
    hour,
    count(*) as companies,
    sum(ticks) as ticks,
    sum(volume) as total_volume,
    sum(turnover) as turnover
from {{ ref('company_hours') }}
group by date, starts_at, hour
