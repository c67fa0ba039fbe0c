{#- The current trading day, whatever the time zone of the reader's session. A unit test says which it is. -#}
{% macro today() -%}
  {{ trading_day_of('utc_timestamp(3)') }}
{%- endmacro %}


{#- The trading day in which a moment lies, an expression in UTC. -#}
{% macro trading_day_of(moment) -%}
  (
    select cast({{ moment }} + interval day_shift_seconds second as date)
    from {{ ref('exchange') }}
    where from_at <= {{ moment }}
    order by from_at desc
    limit 1
  )
{%- endmacro %}


{#- What an age is measured from; a session's own zone would shift it. -#}
{% macro mysql__current_timestamp() -%}
  utc_timestamp(3)
{%- endmacro %}
