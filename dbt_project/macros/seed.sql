{#
  Seeds by swap: the CSV is loaded into a table beside the live one, then one RENAME TABLE, which is atomic, puts it in
  its place. A reader sees the old rows or the new, never none; a failure on the way leaves the live table as it was.
  dbt's own way truncates the table, or drops it, and then fills it.
#}
{% materialization seed, adapter='mysql' %}
  {%- set target = this.incorporate(type='table') -%}
  {%- set existing = adapter.get_relation(database=database, schema=schema, identifier=this.identifier) -%}
  {%- set loaded = target.incorporate(path={'identifier': this.identifier ~ '__loaded'}) -%}
  {%- set replaced = target.incorporate(path={'identifier': this.identifier ~ '__replaced'}) -%}
  {%- set rows = load_agate_table() -%}
  {%- if existing is not none and not existing.is_table -%}
    {% do exceptions.raise_compiler_error(target ~ " exists and is a " ~ existing.type ~ ", not a table") %}
  {%- elif not rows.rows -%}
    {% do exceptions.raise_compiler_error(model.original_file_path ~ " holds no row; " ~ target ~ " keeps those it has") %}
  {%- endif -%}
  {% do store_result('agate_table', response='OK', agate_table=rows) %}

  {{ run_hooks(pre_hooks) }}
  {% do bound_lock_wait() %}
  {% do take_seed_lock(target) %}
  {% do run_query('drop table if exists ' ~ loaded ~ ', ' ~ replaced) %}
  {% do run_query('create table ' ~ loaded ~ ' ' ~ seed_table_definition(rows.column_names)) %}
  {% do insert_seed_rows(loaded, rows) %}
  {%- set replacement = target ~ ' to ' ~ replaced ~ ', ' if existing is not none else '' -%}
  {% do run_query('rename table ' ~ replacement ~ loaded ~ ' to ' ~ target) %}
  {% do run_query('drop table if exists ' ~ replaced) %}
  {% do run_query("do release_lock('" ~ seed_lock_name(target) ~ "')") %}
  {% call noop_statement('main', 'INSERT ' ~ rows.rows | length, 'INSERT', rows.rows | length) %}{% endcall %}
  {% do apply_grants(target, config.get('grants'), should_revoke=False) %}
  {{ run_hooks(post_hooks) }}

  {{ return({'relations': [target]}) }}
{% endmaterialization %}


{#- Two `dbt seed` at once would load into the same table and swap in each other's half. -#}
{% macro take_seed_lock(target) %}
  {%- set got = run_query("select get_lock('" ~ seed_lock_name(target) ~ "', " ~ var('lock_wait_seconds', 10) ~ ")") -%}
  {%- if got.columns[0].values()[0] | int != 1 -%}
    {% do exceptions.raise_compiler_error("another dbt seed is loading " ~ target) %}
  {%- endif -%}
{% endmacro %}


{#- MySQL's limit for the name of a lock is 64 characters. -#}
{% macro seed_lock_name(target) -%}
  {{ return('seed:' ~ local_md5(target.schema ~ '.' ~ target.identifier)) }}
{%- endmacro %}


{#- The body of CREATE TABLE: types from `column_types`, constraints from the columns of the seed's YAML. -#}
{% macro seed_table_definition(column_names) %}
  {%- set types, columns = config.get('column_types', {}), {} -%}
  {%- if types.keys() | sort != column_names | sort -%}
    {% do exceptions.raise_compiler_error(
      model.original_file_path ~ " has the columns " ~ column_names | join(', ') ~ "; its YAML types " ~ types.keys() | join(', ')
    ) %}
  {%- endif -%}
  {%- for name in column_names -%}
    {%- set constraints = model['columns'].get(name, {}).get('constraints', []) -%}
    {%- do columns.update({name: {'name': name, 'data_type': types[name], 'constraints': constraints}}) -%}
  {%- endfor -%}
  ({{ adapter.render_raw_columns_constraints(raw_columns=columns) | join(', ') }}) {{ exact_text_table_options() }}
{% endmacro %}


{% macro insert_seed_rows(relation, rows) %}
  {%- set placeholders = '(' ~ (['%s'] * rows.column_names | length) | join(', ') ~ ')' -%}
  {%- for chunk in rows.rows | batch(1000) -%}
    {%- set bindings = [] -%}
    {%- for row in chunk -%}{%- do bindings.extend(row) -%}{%- endfor -%}
    {% do adapter.add_query(
      'insert into ' ~ relation ~ ' (' ~ rows.column_names | join(', ') ~ ') values '
        ~ ([placeholders] * chunk | length) | join(', '),
      bindings=bindings, abridge_sql_log=True) %}
  {%- endfor -%}
{% endmacro %}
