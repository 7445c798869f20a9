"""PostgreSQL: connections, named statements, migrations, the audit."""
