with days as (
    select
        date,
        ticker,
        min(starts_at) as first_at,
        max(starts_at) as last_at,
        sum(ticks) as ticks,
        sum(volume) as total_volume,
        sum(turnover) as turnover,
        max(high) as high,
        min(low) as low
    from {{ ref('company_hours') }}
    group by date, ticker
)

select
    days.date,
    days.ticker,
    companies.company_name,
    companies.sector,
    days.ticks,
    days.total_volume,
    days.turnover,
    opening.open,
    days.high,
    days.low,
    closing.close
from days
inner join {{ ref('company_hours') }} as opening
    on opening.date = days.date and opening.ticker = days.ticker and opening.starts_at = days.first_at
inner join {{ ref('company_hours') }} as closing
    on closing.date = days.date and closing.ticker = days.ticker and closing.starts_at = days.last_at
left join {{ ref('profile') }} as companies on companies.ticker = days.ticker
