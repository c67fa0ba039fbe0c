{#- The current trading day, whatever the time zone of the reader's session. A unit test says which it is. -#}
{% macro today() -%}
  (
    select cast(utc_timestamp(3) + interval day_shift_seconds second as date)
    from {{ ref('exchange') }}
    where from_at <= utc_timestamp(3)
    order by from_at desc
    limit 1
  )
{%- endmacro %}


{#- What an age is measured from; a session's own zone would shift it. -#}
{% macro mysql__current_timestamp() -%}
  utc_timestamp(3)
{%- endmacro %}
