-- What is shown of credentials, which are sealed: their type, and when the access token that was issued last expires
-- (NULL: there is none, or the server does not say).
ALTER TABLE destinations ADD COLUMN credentials_type text NOT NULL DEFAULT 'token';
ALTER TABLE destinations ADD COLUMN access_expires_at timestamptz;
-- Until then one worker asks for an access token, and the others wait for what it gets (app.destinations.access_tokens).
ALTER TABLE destinations ADD COLUMN refresh_until timestamptz;
