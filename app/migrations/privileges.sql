-- tranche_app may use the schema, and own nothing of it: tables that tranche_owner makes later come with the same rights.
-- As a superuser, in the database.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO tranche_owner;
GRANT USAGE ON SCHEMA public TO tranche_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tranche_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tranche_app;
ALTER DEFAULT PRIVILEGES FOR ROLE tranche_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tranche_app;
ALTER DEFAULT PRIVILEGES FOR ROLE tranche_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO tranche_app;
-- Limits that hold behind PgBouncer, too, which cannot pass those that a client asks for.
ALTER ROLE tranche_app SET statement_timeout = '15s';
ALTER ROLE tranche_app SET lock_timeout = '3s';
ALTER ROLE tranche_app SET idle_in_transaction_session_timeout = '15s';
ALTER ROLE tranche_app SET jit = off;
