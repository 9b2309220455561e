-- The three roles of row-level security: docs/security.md says what each may do.
--
-- Run it in the database of Chorus, which has no other tables, as a superuser or as somebody who may be
-- chorus_migrate; give the two that log in a password; let chorus_migrate make or change the tables:
--
--     psql -d chorus -f deploy/postgresql/roles.sql
--     psql -d chorus -c '\password chorus_migrate' -c '\password chorus_app'
--     chorus store migrate --database-url postgresql://chorus_migrate:...@host/chorus
--     chorus serve --database-url postgresql://chorus_app:...@host/chorus
--
-- It may be run again. What a database had before becomes chorus_migrate's.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['chorus_migrate', 'chorus_app', 'chorus_upkeep'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I', name);
        END IF;
    END LOOP;
END $$;

ALTER ROLE chorus_migrate LOGIN;
-- Whatever chorus_upkeep may do, chorus_app may do only after SET ROLE.
ALTER ROLE chorus_app LOGIN NOINHERIT;
ALTER ROLE chorus_upkeep NOLOGIN;
GRANT chorus_upkeep TO chorus_app;

GRANT USAGE, CREATE ON SCHEMA public TO chorus_migrate;
GRANT USAGE ON SCHEMA public TO chorus_app, chorus_upkeep;

DO $$
DECLARE
    item record;
BEGIN
    FOR item IN SELECT oid::regclass AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO chorus_migrate', item.name);
    END LOOP;
    FOR item IN SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO chorus_migrate', item.name);
    END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO chorus_app, chorus_upkeep;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO chorus_app, chorus_upkeep;
-- A restore goes on counting where the backup was.
GRANT UPDATE ON ALL SEQUENCES IN SCHEMA public TO chorus_upkeep;
ALTER DEFAULT PRIVILEGES FOR ROLE chorus_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO chorus_app, chorus_upkeep;
ALTER DEFAULT PRIVILEGES FOR ROLE chorus_migrate IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO chorus_app, chorus_upkeep;
ALTER DEFAULT PRIVILEGES FOR ROLE chorus_migrate IN SCHEMA public
    GRANT UPDATE ON SEQUENCES TO chorus_upkeep;
