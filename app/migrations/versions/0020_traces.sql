-- Which trace a job belongs to, for all that is done for it later (app.tracing.context). NULL: a job of an earlier release.
ALTER TABLE jobs ADD COLUMN trace_context text;
ALTER TABLE destination_tests ADD COLUMN trace_context text;
