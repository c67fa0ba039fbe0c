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


{#
  What dbt asks before a view is made. Its own answer compares kinds of types alone: to it decimal(30,0) is decimal(42,0),
  and it calls both NEWDECIMAL. Here the server says what the query and the contract come to, by a temporary table of each.
#}
{% macro mysql__get_assert_columns_equivalent(sql) %}
  {#- A server may ask for a primary key of every table, temporary ones too. -#}
  {%- set typed, untyped = ['__key int default 0 primary key'], {} -%}
  {%- for name, column in model['columns'].items() -%}
    {%- do typed.append(adapter.quote(column.name) ~ ' ' ~ column.data_type) -%}
    {%- if not column.data_type -%}{%- do untyped.update({name: column}) -%}{%- endif -%}
  {%- endfor -%}
  {%- if untyped -%}
    {{ exceptions.column_type_missing(column_names=untyped) }}
  {%- endif -%}
  {%- set wanted = definition_of('(' ~ typed | join(', ') ~ ') ' ~ exact_text_table_options()) -%}
  {%- set found = definition_of('(' ~ typed[0] ~ ') as ' ~ get_empty_subquery_sql(sql)) -%}
  {%- set misfits = adapter.view_misfits(wanted, found) -%}
  {%- if misfits -%}
    {% do exceptions.raise_compiler_error(
      "nothing was changed: the query of " ~ this ~ " differs from its contract:\n  - " ~ misfits | join('\n  - ')
    ) %}
  {%- endif -%}
{% endmacro %}


{#- What the server says of a temporary table that is made so, which no other session sees. -#}
{% macro definition_of(body) %}
  {%- set table = this.incorporate(path={'identifier': 'tickledger__contract'}) -%}
  {% do run_query('create temporary table ' ~ table ~ ' ' ~ body) %}
  {%- set definition = show_create_table(table) -%}
  {% do run_query('drop temporary table ' ~ table) %}
  {{ return(definition) }}
{% endmacro %}


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
