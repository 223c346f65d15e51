#!/bin/sh
# Run once by Postgres' image, on an empty volume: Prefect and MLflow get a database each, and a role each that owns it
# and can open no other.
set -eu
: "${PREFECT_DB_PASSWORD:?}" "${MLFLOW_DB_PASSWORD:?}"
for name in prefect mlflow; do
  [ $name = prefect ] && password=$PREFECT_DB_PASSWORD || password=$MLFLOW_DB_PASSWORD
  psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --set=name="$name" --set=password="$password" \
    --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
CREATE ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
SQL
