-- Runs once, when PostgreSQL is made, in the database `tranche`: the two roles of docs/security.md. Their rights follow
-- from app/migrations/privileges.sql.
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD
CREATE ROLE tranche_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE tranche_app LOGIN PASSWORD :'app_password';
ALTER DATABASE tranche OWNER TO tranche_owner;
