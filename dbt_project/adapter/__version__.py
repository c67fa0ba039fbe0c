"""dbt asks each adapter for its version: this one is dbt-mysql's."""

from dbt.adapters.mysql.__version__ import version

__all__ = ["version"]
