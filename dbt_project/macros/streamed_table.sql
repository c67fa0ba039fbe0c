{#
  A table that the stream fills: dbt makes the table, never a row of it.

  If it is missing it is created from the model's YAML: columns, constraints, and `indexes` of its config.
  If it exists, with or without --full-refresh, the only change is one ALTER that every landed row follows: new nullable
  columns, the checks and unique keys on them, new indexes, and without the `former_checks` of the config's `meta`.
  Everything else that the YAML asks for (a removed or retyped column, a new NOT NULL column, another key or check) ends
  in a compilation error that says so.
#}
{% materialization streamed_table, adapter='mysql' %}
  {%- set target = this.incorporate(type='table') -%}
  {%- set existing = adapter.get_relation(database=database, schema=schema, identifier=this.identifier) -%}
  {%- if not config.get('contract').enforced -%}
    {% do exceptions.raise_compiler_error("a streamed_table is made from its contract; set `contract: {enforced: true}`") %}
  {%- elif existing is not none and not existing.is_table -%}
    {% do exceptions.raise_compiler_error(target ~ " exists and is a " ~ existing.type ~ ", not a table") %}
  {%- endif -%}

  {% do refuse_beside_restore() %}
  {{ run_hooks(pre_hooks) }}
  {% do bound_lock_wait() %}
  {%- if existing is none -%}
    {% do run_query('create table if not exists ' ~ target ~ ' ' ~ contract_table_definition()) %}
    {% call noop_statement('main', 'CREATED', 'CREATED', 0) %}{% endcall %}
  {%- else -%}
    {%- set clauses = contract_clauses(target) -%}
    {%- if clauses -%}
      {% do take_alter_lock(target) %}
      {% do run_query('alter table ' ~ target ~ ' ' ~ clauses | join(', ')) %}
      {% do run_query("do release_lock('" ~ alter_lock_name(target) ~ "')") %}
      {% call noop_statement('main', 'ALTERED', 'ALTERED', 0) %}{% endcall %}
    {%- else -%}
      {% call noop_statement('main', 'UNCHANGED', 'UNCHANGED', 0) %}{% endcall %}
    {%- endif -%}
  {%- endif -%}
  {% do apply_grants(target, config.get('grants'), should_revoke=False) %}
  {{ run_hooks(post_hooks) }}

  {{ return({'relations': [target]}) }}
{% endmaterialization %}


{#- The body of CREATE TABLE for the model's contract; also of the shadow table that a live one is compared with. -#}
{% macro contract_table_definition() %}
  {%- set parts = adapter.render_raw_columns_constraints(raw_columns=model['columns'])
                + adapter.render_raw_model_constraints(raw_constraints=model['constraints']) -%}
  {%- for index in config.get('indexes', []) -%}
    {%- do parts.append('index (' ~ index['columns'] | join(', ') ~ ')') -%}
  {%- endfor -%}
  ({{ parts | join(', ') }}) {{ exact_text_table_options() }}
{% endmacro %}


{#- Texts compare byte by byte, whatever the database's default collation: 'tmas.jk' is not 'TMAS.JK'. -#}
{% macro exact_text_table_options() -%}
  engine = InnoDB default character set utf8mb4 collate utf8mb4_bin
{%- endmacro %}


{#- A ledger that is made between a restore's two halves would count the ticks of the first one as duplicates. -#}
{% macro refuse_beside_restore() %}
  {%- if not var('restoring', false) and adapter.get_relation(database=database, schema=schema, identifier='restoring') -%}
    {% do exceptions.raise_compiler_error(
      "a restore into " ~ schema ~ " is not through: run 'tickledger services restore' with its backup again, or start"
      ~ " without data ('drop table restoring' then lets dbt run)"
    ) %}
  {%- endif -%}
{% endmacro %}


{#- DDL that cannot have its lock within these seconds fails: while it waits, every new reader and writer waits behind it. -#}
{% macro bound_lock_wait() %}
  {% do run_query('set session lock_wait_timeout = ' ~ var('lock_wait_seconds', 10)) %}
{% endmacro %}


{#- One ALTER at a time: beside a stream that lands into both tables, MySQL ends one of two with a deadlock. -#}
{% macro take_alter_lock(target) %}
  {%- set got = run_query("select get_lock('" ~ alter_lock_name(target) ~ "', " ~ 6 * var('lock_wait_seconds', 10) ~ ")") -%}
  {%- if got.columns[0].values()[0] | int != 1 -%}
    {% do exceptions.raise_compiler_error("another dbt run is altering a table of " ~ target.schema) %}
  {%- endif -%}
{% endmacro %}


{#- MySQL's limit for the name of a lock is 64 characters. -#}
{% macro alter_lock_name(target) -%}
  {{ return('alter:' ~ local_md5(target.schema)) }}
{%- endmacro %}


{#
  The ALTER clauses that bring the live table to the contract; a compilation error if landed rows cannot follow it.
  tickledger/table_facts.py compares the two as the server itself writes them, the contract through a temporary table.
#}
{% macro contract_clauses(target) %}
  {%- set wanted = definition_of(contract_table_definition()) -%}
  {%- set changes = adapter.contract_changes(wanted, show_create_table(target), former_checks()) -%}
  {%- if changes.problems -%}
    {% do exceptions.raise_compiler_error(
      target ~ " holds streamed rows and differs from its contract in more than additions:\n  - "
      ~ changes.problems | join('\n  - ')
      ~ "\nNothing was changed. Restore the contract, or migrate the table by hand:"
      ~ "\n  1. stop the stream, and back the table up"
      ~ "\n  2. alter table " ~ target ~ "\n       " ~ changes.by_hand | join(",\n       ") ~ ";"
      ~ "\n  3. dbt run, then tickledger check-contract, which must find no difference"
      ~ "\n  4. start the stream"
    ) %}
  {%- endif -%}
  {{ return(changes.clauses) }}
{% endmacro %}


{#- Checks that an earlier contract of the table had, as it said them. -#}
{% macro former_checks() %}
  {{ return((config.get('meta') or {}).get('former_checks', [])) }}
{% endmacro %}


{% macro show_create_table(relation) %}
  {{ return(run_query('show create table ' ~ relation).columns[1].values()[0]) }}
{% endmacro %}
