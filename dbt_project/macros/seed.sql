{#
  Seeds by swap: the CSV is loaded into a table beside the live one, then one RENAME TABLE, which is atomic, puts it in
  its place. A reader sees the old rows or the new, never none; a failure on the way leaves the live table as it was, and
  so do rows that would not come out as they are written, or that a store could take for one another.
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
  {% do refuse_beside_restore() %}
  {% do refuse_rows(unclear_rows(rows)) %}
  {%- if config.get('meta', {}).get('computed_types') -%}
    {% do refuse_rows(adapter.exchange_problems(rows) or moved_exchange(rows, target, existing)) %}
    {%- set rows = adapter.with_clock(rows) -%}
  {%- endif -%}
  {% do store_result('agate_table', response='OK', agate_table=rows) %}

  {{ run_hooks(pre_hooks) }}
  {% do bound_lock_wait() %}
  {% do take_seed_lock(target) %}
  {% do run_query('drop table if exists ' ~ loaded ~ ', ' ~ replaced) %}
  {% do run_query('create table ' ~ loaded ~ ' ' ~ seed_table_definition(rows.column_names)) %}
  {% do insert_seed_rows(loaded, rows) %}
  {%- set alike = look_alikes(loaded, rows) -%}
  {%- if alike -%}
    {% do run_query('drop table ' ~ loaded) %}
    {% do refuse_rows(alike) %}
  {%- endif -%}
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
  {%- set types, columns = dict(config.get('column_types', {}), **config.get('meta', {}).get('computed_types', {})), {} -%}
  {%- if types.keys() | sort != column_names | sort -%}
    {% do exceptions.raise_compiler_error(
      model.original_file_path ~ " has the columns " ~ tojson(column_names | list) ~ "; its YAML types " ~ types.keys() | join(', ')
    ) %}
  {%- endif -%}
  {%- for name in column_names -%}
    {%- set constraints = model['columns'].get(name, {}).get('constraints', []) -%}
    {%- do columns.update({name: {'name': name, 'data_type': types[name], 'constraints': constraints}}) -%}
  {%- endfor -%}
  ({{ adapter.render_raw_columns_constraints(raw_columns=columns) | join(', ') }}) {{ exact_text_table_options() }}
{% endmacro %}


{#-
  Ticks lie by their trading day: one that came again under another day would be landed twice. Their prices are in the
  exchange's currency. A stream that has run may have left some, also if no batch has landed.
-#}
{% macro moved_exchange(rows, target, existing) %}
  {%- set streamed, live = [], none -%}
  {%- for name in ['stream_lock', 'landed_batches'] -%}
    {%- set table = adapter.get_relation(database=database, schema=schema, identifier=name) -%}
    {%- if table is not none and run_query('select 1 from ' ~ table ~ ' limit 1').rows -%}{%- do streamed.append(name) -%}{%- endif -%}
  {%- endfor -%}
  {%- if not streamed -%}
    {{ return([]) }}
  {%- elif existing is not none -%}
    {%- set live = run_query('select from_at, day_shift_seconds, currency from ' ~ target ~ ' order by from_at').rows -%}
  {%- endif -%}
  {{ return(adapter.moved_exchange(rows, live)) }}
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


{% macro refuse_rows(problems) %}
  {%- if problems -%}
    {% do exceptions.raise_compiler_error(
      model.original_file_path ~ " is refused, and the table keeps the rows that it has:\n  - "
      ~ problems[:20] | join('\n  - ') ~ ('\n  - and ' ~ (problems | length - 20) ~ ' more' if problems | length > 20 else '')
    ) %}
  {%- endif -%}
{% endmacro %}


{#- What is wrong with single rows, counted from 1 below the header, and keys that stand twice. -#}
{% macro unclear_rows(rows) %}
  {%- set problems, first_rows = [], {} -%}
  {%- for row in rows.rows -%}
    {%- set number = loop.index -%}
    {%- for name, type in config.get('column_types', {}).items() if name in rows.column_names -%}
      {%- set value, constraints = row[name], model['columns'].get(name, {}).get('constraints', []) | map(attribute='type') | list -%}
      {%- set problem = unclear_value(name, type, value, constraints) | trim -%}
      {%- if problem -%}
        {%- do problems.append('row ' ~ number ~ ': ' ~ name ~ ' ' ~ problem) -%}
      {%- elif 'primary_key' in constraints and value in first_rows -%}
        {%- do problems.append('row ' ~ number ~ ': ' ~ name ~ ' ' ~ tojson(value) ~ ' stands in row ' ~ first_rows[value] ~ ' too') -%}
      {%- elif 'primary_key' in constraints -%}
        {%- do first_rows.update({value: number}) -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endfor -%}
  {{ return(problems) }}
{% endmacro %}


{#- Letters by Unicode, though nothing is seen of them: fillers, joiners, an empty braille cell, variation selectors. -#}
{% macro unseen_characters() -%}
  [\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f]
{%- endmacro %}


{#- What a value should be and is not; empty where it is fine. -#}
{% macro unclear_value(name, type, value, constraints) %}
  {%- if value is none -%}
    {%- if 'not_null' in constraints -%} is empty {%- endif -%}
  {%- elif type == 'bigint' -%}
    {%- if not modules.re.fullmatch('[1-9][0-9]{0,17}', value) -%}
      is {{ tojson(value) }}; it should be a whole number above 0, of at most 18 digits
    {%- endif -%}
  {%- elif type.startswith('varchar') and value | length > type[8:-1] | int -%}
    has {{ value | length }} characters; it should be of type {{ type }}
  {%- elif type.startswith('varchar') and (not value.isprintable() or modules.re.search(unseen_characters(), value)) -%}
    is {{ tojson(value) }}; it should hold no character that cannot be seen
  {%- elif name in config.get('meta', {}).get('told_apart', []) and value != value.strip() -%}
    is {{ tojson(value) }}; it should begin and end with no space
  {%- endif -%}
{% endmacro %}


{#-
  Values of the columns in `told_apart` that differ in case, accents or width alone. MySQL itself says which: tables of
  ours compare byte by byte, but who reads them, or joins them to others, may not.
-#}
{% macro look_alikes(loaded, rows) %}
  {%- set problems, folded = [], ' collate utf8mb4_unicode_520_ci' -%}
  {%- for name in config.get('meta', {}).get('told_apart', []) -%}
    {%- set first_rows = {} -%}
    {%- for row in rows.rows -%}
      {%- do first_rows.setdefault(row[name], loop.index) -%}
    {%- endfor -%}
    {%- set found = run_query(
      'select one.value as spelling, other.value as first_spelling from (select distinct ' ~ name ~ ' as value from ' ~ loaded ~ ') as one'
      ~ ' join (select min(' ~ name ~ ') as value from ' ~ loaded ~ ' group by ' ~ name ~ folded
      ~ ' having count(distinct ' ~ name ~ ') > 1) as other'
      ~ ' on one.value' ~ folded ~ ' = other.value and one.value <> other.value order by other.value, one.value'
    ) -%}
    {%- for pair in found.rows -%}
      {%- do problems.append(
        'row ' ~ first_rows[pair[0]] ~ ': ' ~ name ~ ' ' ~ tojson(pair[0]) ~ ' is all but ' ~ tojson(pair[1]) ~ ' of row '
        ~ first_rows[pair[1]] ~ '; they should be the same, or differ in more than case, accents or width'
      ) -%}
    {%- endfor -%}
  {%- endfor -%}
  {{ return(problems) }}
{% endmacro %}
