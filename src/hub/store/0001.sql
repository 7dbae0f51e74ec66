CREATE TABLE epoch (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO epoch VALUES (1, 1);

-- Everything ever published. Rows stay after revocation: the books refer to them.
CREATE TABLE contents (
    infohash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    layout TEXT NOT NULL,           -- JSON of api::hub::NewUpload; can be megabytes
    private INTEGER NOT NULL,
    price_class TEXT NOT NULL,
    score REAL NOT NULL,
    replicas INTEGER NOT NULL,
    published_at INTEGER NOT NULL,
    lease_end INTEGER NOT NULL,
    revoked_at INTEGER,
    revoke_reason TEXT,
    origin_egress_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    public_key TEXT NOT NULL UNIQUE,
    peer_id TEXT NOT NULL UNIQUE,
    enrolled_at INTEGER NOT NULL
) STRICT;

CREATE TABLE claim_codes (
    hash TEXT PRIMARY KEY,          -- SHA-256 of the code, hex
    created_at INTEGER NOT NULL,
    used_by TEXT REFERENCES devices (id)
) STRICT;

CREATE TABLE reports (
    device TEXT NOT NULL REFERENCES devices (id),
    number INTEGER NOT NULL,
    payload_hash TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (device, number)
) STRICT, WITHOUT ROWID;

-- The price is part of the key: bytes reported under another price are another line.
CREATE TABLE books (
    device TEXT NOT NULL REFERENCES devices (id),
    hour INTEGER NOT NULL,
    infohash TEXT NOT NULL REFERENCES contents (infohash),
    class TEXT NOT NULL,
    price_per_gb INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL,
    PRIMARY KEY (device, hour, infohash, class, price_per_gb)
) STRICT, WITHOUT ROWID;
CREATE INDEX books_by_hour ON books (hour);
