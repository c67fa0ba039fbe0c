select
    sector,
    sum(total_volume) as total_volume
from {{ ref('aggregated_data') }}
where date = {{ today() }}
group by sector
