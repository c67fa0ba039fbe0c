select
    date,
    sector,
    sum(total_volume) as total_volume,
    sum(ticks) as ticks
from {{ ref('aggregated_data') }}
group by date, sector
