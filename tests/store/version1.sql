-- A state of version 1 as it was written, never to be edited: what was released stays readable.
PRAGMA journal_mode = WAL;
PRAGMA application_id = 1852142700;
PRAGMA user_version = 1;
CREATE TABLE entries (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (revision, key)) WITHOUT ROWID;
CREATE TABLE clock (revision INTEGER NOT NULL, forgotten INTEGER NOT NULL);
INSERT INTO entries VALUES ('a', '1', 1), ('b', '3', 2);
INSERT INTO events VALUES (1, 'a', '1'), (1, 'c', '2'), (2, 'b', '3'), (2, 'c', NULL);
INSERT INTO clock VALUES (2, 0);
