{#
  Views by CREATE OR REPLACE: dbt's own way renames the old view away first, which leaves a moment without one.
  A table of the view's name is left alone, also with --full-refresh. With --empty dbt would put a view without a row in
  the place of the one that people read.
#}
{% materialization view, adapter='mysql' %}
  {%- if flags.EMPTY -%}
    {% do exceptions.raise_compiler_error("--empty would leave " ~ this ~ " without rows; dbt compile checks a view and makes none") %}
  {%- endif -%}
  {%- set target = this.incorporate(type='view') -%}
  {%- set existing = adapter.get_relation(database=database, schema=schema, identifier=this.identifier) -%}
  {%- if existing is not none and not existing.is_view -%}
    {% do exceptions.raise_compiler_error(target ~ " exists and is a " ~ existing.type ~ ", not a view") %}
  {%- endif -%}

  {{ run_hooks(pre_hooks) }}
  {% do bound_lock_wait() %}
  {%- if config.get('contract').enforced -%}
    {{ get_assert_columns_equivalent(sql) }}
  {%- endif -%}
  {% call statement('main') %}
    create or replace sql security invoker view {{ target }} as {{ sql }}
  {% endcall %}
  {% do apply_grants(target, config.get('grants'), should_revoke=False) %}
  {{ run_hooks(post_hooks) }}

  {{ return({'relations': [target]}) }}
{% endmaterialization %}


{#- What stands for a column of this type when a contract is compared. -#}
{% macro mysql__get_phony_data_for_type(data_type) -%}
  {{ mysql__safe_cast('null', data_type) }}
{%- endmacro %}


{#- A value as one of a column's type, also in the rows of a unit test: the servers' CAST knows no varchar, int or bigint. -#}
{% macro mysql__safe_cast(field, type) -%}
  {%- set type = type | lower -%}
  {%- if type.startswith('varchar') -%}
    cast({{ field }} as {{ type[3:] }})
  {%- elif type.startswith(('int', 'bigint')) -%}
    cast({{ field }} as signed)
  {%- else -%}
    cast({{ field }} as {{ type }})
  {%- endif -%}
{%- endmacro %}
