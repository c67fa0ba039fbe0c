{#- `grants` of a model's config, one statement each. A right that is taken out of the config must be revoked by hand. -#}
{% macro mysql__call_dcl_statements(dcl_statement_list) %}
  {%- for statement in dcl_statement_list -%}
    {% do run_query(statement) %}
  {%- endfor -%}
{% endmacro %}
