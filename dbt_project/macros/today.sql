{#- The current trading day: the UTC date, whatever the time zone of the reader's session. A unit test says which it is. -#}
{% macro today() -%}
  utc_date()
{%- endmacro %}


{#- What an age is measured from; a session's own zone would shift it. -#}
{% macro mysql__current_timestamp() -%}
  utc_timestamp(3)
{%- endmacro %}
